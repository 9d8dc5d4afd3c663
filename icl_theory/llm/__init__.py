"""Language models in JAX: one decoder for four families, their checkpoints, and fine-tuning by the same optimizers."""

import os

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # torch is intentionally absent
