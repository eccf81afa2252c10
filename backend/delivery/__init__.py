"""Outbox, dispatchers, and the channels that deliver notifications."""
