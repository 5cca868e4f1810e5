"""The worker: saves records from Redis to the archive exactly once, and executes all background jobs.

Imported by `cli/`.
"""
