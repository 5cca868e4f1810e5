"""SQL over the archive: validation of statements, and the sandboxed process that executes them.

Imported by the query program.
"""
