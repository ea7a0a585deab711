"""Commands of the runbook, a topic a file; the others stand in `cli`."""
