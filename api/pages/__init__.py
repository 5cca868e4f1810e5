"""HTML pages: the map, and the viewers of the API's description. Imported by the programs of `api/`."""
