"""The only code that runs SQL: functions take a connection and return frozen records."""
