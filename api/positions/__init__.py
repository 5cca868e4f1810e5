"""The filter of implausible positions: its rule and its SQL. Imported by the programs of `api/`."""
