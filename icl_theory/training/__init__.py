"""Losses, optimizers, and the compiled loop that trains one run or thousands at once."""

ENGINES = ("auto", "moments", "prompts")  # what a step of full-batch training uses
