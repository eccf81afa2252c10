"""Request handling: guard, routing, decoding, serialising."""
