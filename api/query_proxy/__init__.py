"""The API program's way to the query program: connections, and requests that are passed on.

Imported by the API program.
"""
