"""Late events: read, classified, inserted once, and accounted for in batches."""
