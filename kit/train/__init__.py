"""Losses, optimizers and training loops."""
