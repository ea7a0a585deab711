"""What the log adds up to: a run's question, horizons, aggregates, the strategy, the quality of the log."""
