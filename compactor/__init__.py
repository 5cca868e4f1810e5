"""Schedules all background jobs, and has the rules of compaction and retention; the worker executes the jobs.

Imported by `cli/`; the worker loads `compactor.jobs` by its name.
"""
