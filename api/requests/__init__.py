"""What a request asks for: its parameters, its devices by its key, who asks. Imported by all of `api/`."""
