"""Tamper-resistant safeguards (TAR, arXiv 2408.00761); docs/methods/tar.md has the sources."""
