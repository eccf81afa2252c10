"""Rules: evaluate activities and metrics, send notifications."""
