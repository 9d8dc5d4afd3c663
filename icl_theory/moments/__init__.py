"""Moments of prompts, compressed prompts and infinite data; they determine the loss of linear attention."""
