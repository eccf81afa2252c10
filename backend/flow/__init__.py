"""``.flow`` files: integrations declared in text."""
