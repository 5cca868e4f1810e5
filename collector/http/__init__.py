"""The collector's HTTP routes, bodies of records, and their description.

Imported by `listeners/`, the program, and `api/`, which describes the routes.
"""
