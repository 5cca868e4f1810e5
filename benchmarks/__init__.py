"""Benchmarks: each starts a box of its own, and runs alone as `python -m benchmarks.<name>`."""
