"""Settings: their declarations, the file, environment variables, and their validation.

Imported by everything above `observability/`.
"""
