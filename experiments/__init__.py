"""Reproduction, benchmarks, the tutorial and the studies of language models.

`python -m experiments` measures every claim, draws the figures and writes the report.
"""
