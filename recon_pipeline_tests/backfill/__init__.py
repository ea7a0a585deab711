"""Late events: what becomes of rows under crashes, overlap and hostile files."""
