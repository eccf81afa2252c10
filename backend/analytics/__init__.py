"""Analytics services: queries, date ranges, rollup maintenance."""
