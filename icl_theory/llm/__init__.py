"""Language models in JAX: one decoder for several families, their checkpoints, and fine-tuning by the same optimizers.

The public names are listed in `__init__.pyi`; each is imported when it is first used.
"""

import os
from typing import Any

import lazy_loader

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # torch is intentionally absent

_found, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _found(name)
    except ImportError as error:
        raise ImportError(f"{error}; install what language models need: pip install 'icl-theory[llm]'") from error
