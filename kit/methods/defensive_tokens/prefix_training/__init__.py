"""Training of a few input vectors under a frozen language model."""
