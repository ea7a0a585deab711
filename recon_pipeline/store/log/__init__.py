"""The application's tables as they really are, and what a log needs to be read in increments."""
