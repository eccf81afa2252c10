"""Template rendering and JSON Schema checks of template data."""
