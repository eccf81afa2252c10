"""When a session ends without the app ending it."""

IDLE_MS = 30 * 60 * 1000
"""A session ends after this time without an activity or heartbeat [GA4, PostHog]."""
LONGEST_MS = 24 * 60 * 60 * 1000
"""The longest session; then the next one begins."""
