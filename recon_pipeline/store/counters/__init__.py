"""Counters: compared, repaired, taken back, paused, held."""
