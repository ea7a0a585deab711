"""From a row of somebody's export to an event of the log, or to every reason why it is none. Pure."""
