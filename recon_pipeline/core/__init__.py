"""Decisions without side effects: no Dagster, no driver, no clock, no environment."""
