"""What pages of browsers may ask of the box: host names, origins, CORS, session cookies.

Imported by `http/` and all programs.
"""
