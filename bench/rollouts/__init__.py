"""Fleets of processes that are treated as Kubernetes treats pods."""
