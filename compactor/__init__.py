"""The compactor: schedules all background jobs, and decides which files to merge and which days to delete.

The worker executes the jobs; it loads `compactor.jobs` by name. Imported by `cli/`.
"""
