"""Linear and softmax attention read at the query token, and the cubic features that linear attention is linear in."""

BLOCKS = ("reduced", "full")  # weights on the entries that matter, or on all D+1
SCORES = ("linear", "softmax")
