"""The API: answers questions about devices over HTTP, in two programs, `api` and `query`. Imported by `cli/`."""
