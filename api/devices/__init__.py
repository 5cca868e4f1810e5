"""The list of devices, their record counts, and their deletion. Imported by the programs of `api/`."""
