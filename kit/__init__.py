"""A reproducibility kit for three lines of LLM-safety work."""

__version__ = "0.1.0"
