"""Predictions: closed forms, reduced systems and flows; every formula with its code, test and figure, then the
derivations.

.. include:: FORMULAS.md
.. include:: NOTES.md
"""
