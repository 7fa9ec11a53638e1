"""Keys, plan, store, runner, events, record."""
