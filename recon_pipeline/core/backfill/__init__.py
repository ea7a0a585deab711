"""Turns a row of an export into an event of the log, or into every reason why it is not one. Pure."""
