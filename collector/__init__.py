"""The collector: receives records over HTTP, TCP, UDP and MQTT and appends them to Redis.

Imported by `cli/`, and `http/` and `ingest/` also by `api/`.
"""
