"""The API program's connections to the query program. Imported by the API program."""
