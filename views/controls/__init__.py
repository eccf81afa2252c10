"""Reusable controls for any Flet app: they import only Flet, and read their data through the protocols here."""
