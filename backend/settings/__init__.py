"""``flashflow.toml``: model, parser, editor, file, secrets."""
