"""Linear and softmax attention read out at the query token, and the cubic features of linear attention."""

BLOCKS = ("reduced", "full")  # weights on the token entries that matter, or on all D+1
SCORES = ("linear", "softmax")
