"""Pictures of the app, served and packaged with it."""
