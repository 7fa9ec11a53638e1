"""Manifests: types, loading, schema, pins, lint."""
