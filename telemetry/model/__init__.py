"""Types without dependencies: records, API keys, problems, errors, MQTT topics, days in UTC.

Imported by everything; imports nothing else of Whimbrel.
"""
