"""Losses, optimizers, and the compiled loop that trains one run or thousands at once."""

ENGINES = ("auto", "moments", "prompts")  # what full-batch training goes through at every step
