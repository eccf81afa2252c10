"""The local HTTP API: thin over the services."""
