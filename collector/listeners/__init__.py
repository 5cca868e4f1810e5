"""Ports over TCP and UDP, and the processes that share them. Imported by `mqtt/` and the program."""
