"""The GT06 protocol of Concox and its kin. Imported by `protocols/`."""
