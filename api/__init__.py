"""The API: questions about devices over HTTP."""
