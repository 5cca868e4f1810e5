"""The box's status: readiness, metrics, the status page, the history of the last hour.

Imported by the programs of `api/`.
"""
