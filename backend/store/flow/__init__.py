"""Tables of ``.flow`` projects in ``notifications.db``: rows of models, runs of jobs, applied declarations."""
