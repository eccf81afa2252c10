"""Commands of the ``flashflow`` command line."""
