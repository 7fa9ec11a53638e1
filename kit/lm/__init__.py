"""Language models: loading, chat formats, generation."""
