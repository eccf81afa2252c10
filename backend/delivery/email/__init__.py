"""The e-mail channel: message, SMTP connection, connection pool."""
