"""Tolerance kinds, claims, verdicts."""
