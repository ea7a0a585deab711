"""Tests of recon_pipeline, against a real Postgres. The fixtures are in `conftest.py`."""
