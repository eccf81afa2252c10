"""Steps that bring a file of an older schema to the current one (``store.files``).

A landed step is frozen: it is plain SQL and the standard library, calls no code that may change, and a test holds the
digest of the schema that it leads to. No step starts from a schema older than commit 324aca6: 13 in
``user_activities.db``, 7 in ``notifications.db``.
"""
