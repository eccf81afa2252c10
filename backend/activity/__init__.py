"""Activity and session services."""
