"""Attacks on a whole box with keys: mutated requests, frames and queries, while honest senders are timed.

Only `benchmarks/attack/__main__.py` and tests import it.
"""
