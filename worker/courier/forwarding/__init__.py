"""Forwarding of records to other stores, by version of the archive. Imported by `worker/courier/`."""
