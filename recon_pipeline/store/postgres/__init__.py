"""The way to Postgres: connections and their limits, its errors in words, statements by name, COPY."""
