"""Counters: compared, verified, repaired; repairs undone and paused, customers held."""
