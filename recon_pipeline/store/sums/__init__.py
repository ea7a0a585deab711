"""What the log adds up to: the parameters of a run, horizons, aggregates, the mode, the quality of the log."""
