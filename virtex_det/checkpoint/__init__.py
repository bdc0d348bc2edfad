"""Weights that others published, read safely and loaded whole, and the checkpoints of our own runs."""

from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.checkpointer import TransferCheckpointer
from virtex_det.checkpoint.formats import FORMATS, Format, contradictions, recognise
from virtex_det.checkpoint.loading import LoadReport, Mismatch, load_weights
from virtex_det.checkpoint.reading import file_sha256, read_file

__all__ = [
    "FORMATS",
    "Architecture",
    "Format",
    "LoadReport",
    "Mismatch",
    "TransferCheckpointer",
    "contradictions",
    "describe",
    "file_sha256",
    "load_weights",
    "read_file",
    "recognise",
]
