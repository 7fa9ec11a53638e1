"""Fine-tuning attacks on safeguards, and what the worst of them says."""
