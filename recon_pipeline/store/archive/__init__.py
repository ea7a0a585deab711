"""Sealed months that leave the log for files: reads a month, records its archive, says what may be deleted."""
