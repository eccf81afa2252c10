"""SQLite files: connections, writer thread, checkpoints, backups, locks."""
