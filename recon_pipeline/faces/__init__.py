"""What people and machines talk to: the command line, HTTP, the UI, the demo."""
