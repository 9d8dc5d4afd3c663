"""Studies of claim D on language models, and their saved results."""
