"""Commands by topic: options and an example of each; what they do is in the modules of `faces`."""
