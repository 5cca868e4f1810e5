"""Protection against other sites' pages: host names, origins, CORS, session cookies.

Imported by `http/` and all programs.
"""
