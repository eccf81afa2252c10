"""Network layer of the channels: HTTP client, sockets, deadlines, SSRF guard."""
