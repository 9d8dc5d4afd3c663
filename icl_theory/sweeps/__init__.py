"""Thousands of runs over settings, trained as few programs and kept as one labelled data set."""

SYSTEMS = ("auto", "full", "reduced")  # which is trained: both where there is a theory, the model, the theory
