"""Unlearning by checkpoint-activation transfer (docs/methods/checkpoint-transfer.md)."""
