"""Fine-tuning: prompts to batches, one step, the loop, checkpoints."""
