"""Weights that others published, read safely and loaded whole, and the checkpoints of our own runs."""

from virtex_det.checkpoint.agreement import backbone_keys, contradictions, follow_weights
from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.checkpointer import TransferCheckpointer, classes_in
from virtex_det.checkpoint.conversion import convert
from virtex_det.checkpoint.formats import FORMATS, Format
from virtex_det.checkpoint.loading import LoadReport, Mismatch, load_weights
from virtex_det.checkpoint.reading import file_sha256, read_file
from virtex_det.checkpoint.recognition import recognise

__all__ = [
    "FORMATS",
    "Architecture",
    "Format",
    "LoadReport",
    "Mismatch",
    "TransferCheckpointer",
    "backbone_keys",
    "classes_in",
    "contradictions",
    "convert",
    "describe",
    "file_sha256",
    "follow_weights",
    "load_weights",
    "read_file",
    "recognise",
]
