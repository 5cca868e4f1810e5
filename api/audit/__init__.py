"""The route `/v1/audit`, and audit entries of requests to the API. Imported by the programs of `api/`."""
