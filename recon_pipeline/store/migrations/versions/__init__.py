"""One file for each version of schema `recon`."""
