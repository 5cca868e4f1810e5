"""How the box is: readiness, metrics, the status page, and the history of the last hour.

Imported by the programs of `api/`.
"""
