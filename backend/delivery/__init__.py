"""Delivery: the outbox and its channels, one file each."""
