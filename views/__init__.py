"""The screens: Flet lives only here and in main.py."""
