"""LVIS evaluation by the reference implementation, on current NumPy."""

import contextlib
from collections.abc import Iterator

import numpy as np
from detectron2 import evaluation


@contextlib.contextmanager
def numpy_float_alias() -> Iterator[None]:
    """Define ``np.float``, which the ``lvis`` package of 2020 uses, and remove it again."""
    had_it = "float" in vars(np)
    if not had_it:
        np.float = float  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if not had_it:
            del np.float  # type: ignore[attr-defined]


class LVISEvaluator(evaluation.LVISEvaluator):
    """Detectron2's evaluator over ``lvis``, with the alias it needs on NumPy 1.24 and newer."""

    def evaluate(self) -> dict | None:
        """Return AP, APr, APc, APf and the rest, as Detectron2 names them."""
        with numpy_float_alias():
            return super().evaluate()
