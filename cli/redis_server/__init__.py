"""The bundled Redis server and its users. Imported by `cli/services/`, `cli/doctor/` and `cli/main.py`."""
