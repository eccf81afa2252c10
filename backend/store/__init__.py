"""SQL and Peewee: every statement of FlashFlow stands in this package."""
