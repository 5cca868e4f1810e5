"""The traffic that `whimbrel sniff` shows, and the metrics of each protocol.

Imported by `http/`, `listeners/` and `mqtt/`.
"""
