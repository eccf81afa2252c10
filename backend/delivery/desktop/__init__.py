"""Native desktop notifications."""
