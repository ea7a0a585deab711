"""The product as a person meets it: `recon dev` and a real Chromium."""
