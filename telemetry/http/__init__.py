"""HTTP servers: connections, authentication, rate limits, problem responses, descriptions of operations.

Imported by the programs.
"""
