"""The interfaces for people and machines: the command line, HTTP, the UI, the demo."""
