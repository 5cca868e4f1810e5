"""Subscriptions to MQTT brokers. Imported by the program."""
