"""What runs without being asked: jobs, schedules, sensors, and Dagster's storage."""
