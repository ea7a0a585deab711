"""What billing providers were told of usage: read, and never written."""
