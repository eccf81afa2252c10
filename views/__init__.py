"""The screens: Flet is imported here only."""
