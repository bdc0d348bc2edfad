"""Reading weights that others published, safely and whole, and the checkpoints of our own runs.

The steps from a path to a filled model; each passes its result to the next::

    checkpointer, loading  entry points: TransferCheckpointer.load, load_weights
    sources                opens a file for every caller: path -> Source
      locating               path or address -> file on disk; folder or index -> its files
      hashing                SHA-256 of the file, in a thread beside the other steps
      reading                file -> content: tensors in plain containers; parses each file once
        torch_files            files of torch.save and TorchScript (safetensors: its own library)
        pickle_limits          checks what a pickle asks for before it is read
        unpickling             builds tensors and arrays, runs no code
        plain_values           refuses everything else
      recognition            content -> Weights: one network of one family
        networks               finds networks and their prefixes
        families               matches each with a family (formats) and renames its tensors (names)
        choice                 chooses between several networks
        inside, companions     facts that tensors do not show: from the file, beside it, or assumed
    loading                Weights + model -> LoadReport (report)
      compatibility          config keys that contradict the weights
      backbones              finds the backbone and the other networks of the model
      refusal, reasons       whether the load is whole; if not, why, and what to do
      values                 refuses numbers that no trained network has

``conversion`` uses the same steps as far as ``recognition`` and writes another file. ``last`` names
the checkpoint that a run resumes from.
"""

from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.checkpointer import TransferCheckpointer, classes_in
from virtex_det.checkpoint.compatibility import backbone_keys, contradictions, follow_weights
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
