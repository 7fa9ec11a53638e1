"""The world of injected instructions: data, models, and the weights that ship."""
