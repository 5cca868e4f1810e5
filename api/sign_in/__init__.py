"""Sign-in and sign-out: passwords, OpenID Connect, sessions. Imported by the API program."""
