"""Attacks by somebody who knows the defence: a token search, and the best of many texts."""
