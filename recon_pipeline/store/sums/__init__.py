"""What the log adds up to: a run's question, horizons, aggregates, the mode, the quality of the log."""
