"""What the product promises about counters, each promise tried on a real Postgres with real concurrent connections."""
