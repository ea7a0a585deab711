"""What is remembered and reported: runs, alerts, metrics, explanations, the schedule, requirements."""
