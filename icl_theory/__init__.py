"""Predict, and test by simulation, the order in which linear attention learns features, under GD and SAM.

The public names, by stage, are listed in `__init__.pyi`. Each is imported when it is first used, so that importing the
package is cheap. Predictions and every formula are in `icl_theory.theory`, the verification table in
`icl_theory.verification`, language models in `icl_theory.llm`, pictures in `icl_theory.plotting`. Importing never
changes jax's precision.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("icl-theory")
