"""Numerical utilities: tracing, contractions, normal draws, and threads on the cores of a CPU."""
