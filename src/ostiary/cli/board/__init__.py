"""`ostiary board`: proposals for those who decide about them, one file a command. Nothing is decided here."""
