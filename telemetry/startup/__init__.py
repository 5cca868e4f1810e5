"""How a program starts: signals, checks of the store, what it must not load. Imported by the programs."""
