"""`whimbrel doctor`: one check a file, each with a finding and what to do.

Imported by `cli/main.py` and `cli/services/`.
"""
