"""Notification services: send, inbox, preferences, schedules."""
