"""Predictions: closed forms, reduced systems and flows. Formulas and derivations are in NOTES.md beside this file."""
