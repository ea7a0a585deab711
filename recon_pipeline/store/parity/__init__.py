"""What the log says was sent to a provider's meters, and what comparisons with them found."""
