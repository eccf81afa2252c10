"""Analytics queries over the rollups."""
