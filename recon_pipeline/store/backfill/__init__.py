"""Late events: read, judged, inserted once, and accounted for in batches."""
