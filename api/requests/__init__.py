"""Parameters of a request, its client, and the devices that its key allows. Imported by all of `api/`."""
