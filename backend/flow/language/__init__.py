"""The ``.flow`` language: grammar, declarations, checks and messages. It runs nothing (docs/flow.md)."""
