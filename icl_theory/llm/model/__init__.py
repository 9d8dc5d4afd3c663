"""Decoders of all families, their checkpoints, tokenizers and generation."""
