"""Who may do what: keys, users, sessions, and what ends when one is withdrawn.

Imported by `http/`, `audit/`, `browsers/` and all programs.
"""
