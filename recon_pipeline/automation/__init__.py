"""What runs without a person: jobs, schedules, sensors, and Dagster's storage."""
