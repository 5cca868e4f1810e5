"""The courier: forwards saved records to other stores, and sends alerts to webhooks.

Imported by `worker/` and `cli/`.
"""
