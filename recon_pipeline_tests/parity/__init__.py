"""What the comparison with a provider's meters promises, against a Stripe of our own and by the real SDK."""
