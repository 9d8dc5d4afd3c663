"""Moments, all that linear attention sees of its data: of prompts, of compressed prompts, of infinite data."""
