"""Areas on the Earth, and their SQL. Imported by `requests/` and all above."""
