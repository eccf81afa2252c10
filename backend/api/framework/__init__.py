"""Request handling of the API: guard, routing, decoding, serialising."""
