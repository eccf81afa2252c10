"""Errors, events, clock, configuration: used by every package, depends on none."""
