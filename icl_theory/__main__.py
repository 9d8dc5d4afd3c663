"""`python -m icl_theory` is `icl-theory`."""

from icl_theory.cli import main

main()
