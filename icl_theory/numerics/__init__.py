"""Arithmetic under everything else: tracing, contractions, normal draws, and threads on the cores of a CPU."""
