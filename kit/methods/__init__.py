"""The science, one folder a family."""
