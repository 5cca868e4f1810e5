"""TCP and UDP ports, and the processes that share them. Imported by `mqtt/` and the program."""
