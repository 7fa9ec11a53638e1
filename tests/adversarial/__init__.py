"""Planted deviations and where the verdict must catch them."""
