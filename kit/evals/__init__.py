"""Scores of model answers."""
