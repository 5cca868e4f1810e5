"""State that the programs share through Redis: jobs, heartbeats, metrics, progress, counts of rejections.

Imported by `access/`, `http/` and all programs.
"""
