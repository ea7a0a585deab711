"""What the command line promises, on a real Postgres and a real Dagster instance."""
