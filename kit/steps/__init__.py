"""Where methods meet the engine."""
