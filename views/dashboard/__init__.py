"""The dashboard screen and its panels."""
