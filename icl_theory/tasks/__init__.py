"""In-context regression tasks: spectra, mixtures of groups, prompts drawn from them, and their features."""
