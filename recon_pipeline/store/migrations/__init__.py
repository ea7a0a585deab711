"""Alembic migrations of schema `recon`, which is ours; the application's tables are not touched here."""
