"""Parity: whether a provider's meter has what the log says was sent to it."""
