"""Devices: their list, what each has stored, and their deletion. Imported by the programs of `api/`."""
