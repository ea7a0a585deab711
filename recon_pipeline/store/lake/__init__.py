"""What an engine counted in a lake, kept in the place of the log."""
