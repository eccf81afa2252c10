"""Typed objects that cross a border: requests, records, their field types."""
