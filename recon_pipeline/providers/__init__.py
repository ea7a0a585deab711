"""What billing providers have of usage: read, and never written."""
