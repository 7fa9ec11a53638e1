"""Baselines of the paper, each from its formula; docs/methods/tar.md has their sources."""
