"""Settings: their declaration, their file, their checks. Imported by everything but `model/`."""
