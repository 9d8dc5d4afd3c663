"""Decoders of four families, their checkpoints, tokenizers and generation."""
