"""Access control: API keys, users, sessions, and the end of their connections when access is withdrawn.

Imported by `http/`, `audit/`, `browsers/` and all programs.
"""
