"""Find the examples that are learned late and upsample them: the rule, its files, and adapters for trainers."""

GROUPS = ("late", "random", "early")  # who is upsampled: the late, or a control
