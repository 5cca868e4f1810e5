"""The filter of implausible positions: its rule and its SQL. Imported by `tracks/` and all above."""
