"""Erasure, retention, consent and export over both files."""
