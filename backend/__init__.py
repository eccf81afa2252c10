"""FlashFlow without its screens."""
