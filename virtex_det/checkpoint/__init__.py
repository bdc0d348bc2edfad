"""Weights that others published, read safely and loaded whole, and the checkpoints of our own runs.

The road of a load, from a path to a filled model; each step hands a value to the next and is not
returned to::

    checkpointer, loading    the doors: TransferCheckpointer.load, load_weights sources
    the one opener, for every caller -> Source locating                 path or address -> file on
    disk; of a folder or an index, its files hashing                  its hash, in a thread beside
    all that follows reading                  file -> content: tensors in plain containers; each
    file is parsed once torch_files              what torch.save and TorchScript write (safetensors:
    its own library) pickle_limits            ... what their pickle asks for, looked at before it is
    read unpickling               ... tensors and arrays, no code plain_values             ... and
    nothing else recognition              content -> Weights: one network of one family networks
    where networks lie, under which prefix families                 of which family (formats) each
    is, its tensors by canonical name (names) choice                   which one is meant inside,
    companions       what no tensor shows: read in the file, beside it, or assumed loading
    Weights + model -> LoadReport (report) agreement                what the config must not
    contradict backbones                where the model has its backbone, and which other networks
    it has refusal, reasons         whether it would be whole; if not, why, and what to do values
    numbers that no trained network has

``conversion`` takes the same road to ``recognition`` and writes another file. ``last`` names the
checkpoint that a run goes on from.
"""

from virtex_det.checkpoint.agreement import backbone_keys, contradictions, follow_weights
from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.checkpointer import TransferCheckpointer, classes_in
from virtex_det.checkpoint.conversion import convert
from virtex_det.checkpoint.formats import FORMATS, Format
from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.checkpoint.loading import load_weights
from virtex_det.checkpoint.reading import read_file
from virtex_det.checkpoint.recognition import recognise
from virtex_det.checkpoint.report import LoadReport, Mismatch

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
