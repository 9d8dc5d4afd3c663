"""Find the examples that are learned late and upsample them: the rule, its files, and adapters for trainers."""

GROUPS = ("late", "random", "early")  # which group is upsampled: the late examples, or a control
