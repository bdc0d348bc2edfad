"""Matrices of runs: read from a file, checked, worked on here or on Slurm, and measured."""

from virtex_det.experiments.matrix import (
    Matrix,
    Pretraining,
    measured,
    recorded,
    report,
    run_matrix,
)
from virtex_det.experiments.matrix_file import read_matrix

__all__ = ["Matrix", "Pretraining", "measured", "read_matrix", "recorded", "report", "run_matrix"]
