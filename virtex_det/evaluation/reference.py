"""LVIS evaluation with the reference implementation on today's NumPy."""

import contextlib
from collections.abc import Iterator

import numpy as np
from detectron2 import evaluation


@contextlib.contextmanager
def numpy_float_alias() -> Iterator[None]:
    """Lend NumPy the name ``np.float`` that the ``lvis`` package of 2020 still uses, and take it back."""
    had_it = "float" in vars(np)
    if not had_it:
        np.float = float  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if not had_it:
            del np.float  # type: ignore[attr-defined]


class LVISEvaluator(evaluation.LVISEvaluator):
    """Detectron2's evaluator over ``lvis``, which breaks on NumPy 1.24 and newer without the alias."""

    def evaluate(self) -> dict | None:
        """Return AP, APr, APc, APf and the rest, as Detectron2 names them."""
        with numpy_float_alias():
            return super().evaluate()
