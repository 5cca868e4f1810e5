"""People sign in and out: passwords, OpenID Connect, sessions. Imported by the API program."""
