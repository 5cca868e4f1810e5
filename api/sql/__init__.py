"""SQL over the archive: statements that may run, and the process of its own in which they do.

Imported by the query program.
"""
