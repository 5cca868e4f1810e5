"""What `whimbrel sniff` shows, and the metrics of each protocol. Imported by `http/`, `listeners/`, `mqtt/`."""
