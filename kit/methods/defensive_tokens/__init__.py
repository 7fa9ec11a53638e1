"""Prefix embeddings against prompt injection."""
