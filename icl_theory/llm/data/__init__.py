"""Rows of a fine-tuning set as prompts, tokens and batches."""
