"""`ostiary session`, which is also `scone session`: one file a command. Nothing is decided here."""
