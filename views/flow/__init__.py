"""Pages of ``.flow`` files: one screen per ``page``, with tables, charts and forms that load by themselves."""
