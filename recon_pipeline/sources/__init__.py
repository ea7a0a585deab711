"""Exports as files: found, opened, decompressed, cut into pieces of rows. Knows nothing of mappings and databases."""
