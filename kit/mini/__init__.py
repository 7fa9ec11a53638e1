"""The miniature worlds, how their models were made, and their weights."""
