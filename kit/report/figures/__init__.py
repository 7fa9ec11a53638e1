"""Figures of a report: deterministic SVG that takes its colours from the page."""
