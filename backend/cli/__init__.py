"""Commands of ``flashflow``."""
