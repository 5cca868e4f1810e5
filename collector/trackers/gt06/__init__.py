"""The GT06 protocol of Concox and compatible trackers. Imported by `protocols/`."""
