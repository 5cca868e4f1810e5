"""Traffic capture for `whimbrel sniff`, and the metrics of each protocol.

Imported by `http/`, `listeners/` and `mqtt/`.
"""
