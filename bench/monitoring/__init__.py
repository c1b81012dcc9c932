"""Does the monitoring of `deploy/` work on a live system."""
