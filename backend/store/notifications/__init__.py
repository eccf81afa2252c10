"""Notifications, deliveries, preferences and rules in ``notifications.db``."""
