"""What programs tell each other through Redis: jobs, progress, metrics, refusals.

Imported by `access/`, `http/` and all programs.
"""
