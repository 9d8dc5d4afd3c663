"""Fine-tuning as one job in a folder."""
