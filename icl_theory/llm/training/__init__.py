"""Fine-tuning: losses, the optimizer step, the training loop, and checkpoints."""
