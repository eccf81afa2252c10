"""The SMS channel and segment counting."""
