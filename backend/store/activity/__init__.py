"""Activities and sessions in ``user_activities.db``."""
