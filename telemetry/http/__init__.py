"""HTTP servers: connections, keys, limits, problems. Imported by the programs."""
