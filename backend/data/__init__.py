"""Export, import, erasure and retention."""
