"""Rollup tables in ``user_activities.db``, updated in the transaction of each activity."""
