"""Schema steps of both files."""
