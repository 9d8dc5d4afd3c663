"""Predictions: closed forms, reduced systems and flows.

FORMULAS.md lists every formula with its code, test and figure. NOTES.md derives them.
"""
