"""Language models in JAX: one decoder for four families, their checkpoints, and fine-tuning by the same optimizers."""
