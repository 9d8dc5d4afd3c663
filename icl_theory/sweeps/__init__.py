"""Sweeps: many runs over settings, trained as few compiled programs and kept as one labelled data set."""

SYSTEMS = ("auto", "full", "reduced")  # trained: the model and, where one exists, the theory; the model; the theory
