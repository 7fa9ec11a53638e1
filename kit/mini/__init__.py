"""The miniature worlds: their data, and how their models are made."""
