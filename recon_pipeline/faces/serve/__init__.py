"""`recon serve`: the cron endpoint, health and metrics over HTTP."""
