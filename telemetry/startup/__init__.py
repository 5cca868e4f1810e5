"""Start of a program: early signals, blocked imports, checks of Redis and archive. Imported by the programs."""
