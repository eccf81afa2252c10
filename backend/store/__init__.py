"""The store: Peewee models over SQLite, one writer thread a file, migrations, backups."""
