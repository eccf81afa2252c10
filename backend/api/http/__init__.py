"""The protocol layer: connection limits, problem+json, request metrics."""
