"""Tolerance kinds: how far a cell may move, each with its formula and source."""
