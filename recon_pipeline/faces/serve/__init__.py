"""`recon serve`: pages, the cron endpoint, health and metrics over HTTP."""
