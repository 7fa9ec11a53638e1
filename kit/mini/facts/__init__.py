"""The world of fictional facts: pretrained within a run, to unlearn and to tamper with."""
