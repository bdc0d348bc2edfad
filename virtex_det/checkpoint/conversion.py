"""Converting a weights file of any family to a file for Detectron2, torchvision or VirTex."""

import pickle
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from virtex_det.checkpoint.loading import check_values, fill
from virtex_det.checkpoint.names import from_virtex_heads, to_torchvision
from virtex_det.checkpoint.report import LoadReport
from virtex_det.checkpoint.sources import open_weights
from virtex_det.checkpoint.weights import Weights
from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.utils import replacing

Naming = Literal["detectron2", "torchvision", "virtex"]
Tensors = dict[str, torch.Tensor]


def convert(
    source: str,
    target: str | Path,
    *,
    family: str = "",
    prefix: str = "",
    to: Naming = "detectron2",
) -> LoadReport:
    """Write a backbone under Detectron2's, torchvision's or VirTex's names, in float32.

    A backbone for Detectron2 is matched by the ends of its names (``matching_heuristics``), so that
    one file fits FPN and C4. A detector is written whole, under its own names. VirTex's layout
    includes the textual heads.

    Args:
        source: a file, or an address that Detectron2's path handlers know.
        target: the file to write, in the format of its suffix: .pth, .pkl (only Detectron2) or
            .safetensors (not VirTex).
        family: of the source, if its tensors do not show it.
        prefix: of the network in the source, if it has several.
        to: the naming to write.

    Returns:
        The report of loading the source into the network that its tensors describe; tensors that
        are not written are unused.

    Raises:
        UserError: the source cannot be read or is incomplete, or the target cannot be written.
            Nothing is written.
    """
    target = Path(target)
    write = _writer(target, to)
    opened = open_weights(source, family=family, prefix=prefix, hashed=True)
    weights = opened.weights
    names = _names(weights, to)
    tensors = _copies(
        {new: weights.tensors[old] for new, old in names.items()}, keep_ties=to == "virtex"
    )
    report = fill(_network(weights), weights, source)
    check_values(
        {new: weights.tensors[old] for new, old in names.items()},
        _without_values(tensors),
        names,
        source,
    )
    try:
        with replacing(target) as unfinished:
            write(tensors, unfinished, not weights.format.detectron2_names)
    # PyTorch raises RuntimeError and safetensors SafetensorError for errors of the disk.
    except (OSError, RuntimeError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(
            f"Cannot write {target}: {why}. Check its permissions and the free disk space."
        ) from error
    unused = tuple(sorted(set(weights.tensors) - set(names.values())))
    return report._replace(sha256=opened.sha256(), unused=unused)


def _network(weights: Weights) -> nn.Module:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_backbone"
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = bool(weights.format.stride_in_1x1)
    for key, value in weights.architecture.config().items():
        cfg.merge_from_list([key, value])
    with torch.device("meta"):  # only shapes are needed
        return build_backbone(cfg, ShapeSpec(channels=3))


def _names(weights: Weights, to: Naming) -> dict[str, str]:
    """Return {name to write: name in the source}."""
    if to == "detectron2":
        return (
            weights.rest if weights.format.detectron2_names and weights.rest else weights.backbone
        )
    if weights.architecture.stem != "basic" and (to == "virtex" or weights.format.stem != "clip"):
        raise UserError(
            "The network has a stem of three convolutions, but torchvision, whose names "
            f"--to {to} writes, has no network with a deep stem.\n"
            "Convert it with --to detectron2."
        )
    names = {
        to_torchvision(canonical): weights.backbone[canonical]
        for canonical in _shortcuts_last(weights.backbone)
    }
    if to == "torchvision":
        return names
    heads = {name: source for name, source in weights.rest.items() if from_virtex_heads(name)}
    return {f"visual.cnn.{name}": source for name, source in names.items()} | heads


def _shortcuts_last(canonical: Iterable[str]) -> list[str]:
    """Put each block's shortcut after its convolutions, as torchvision does."""
    blocks = groupby(canonical, key=lambda name: re.sub(r"^(stem|res\d\.\d+)\..*", r"\1", name))
    return [
        name for _, block in blocks for name in sorted(block, key=lambda name: ".shortcut." in name)
    ]


def _copies(tensors: Tensors, keep_ties: bool) -> Tensors:
    """Copy tensors as float32; with `keep_ties`, tied tensors stay tied."""
    places = {
        name: (tensor.data_ptr(), tensor.shape) if keep_ties else name
        for name, tensor in tensors.items()
    }
    one_of_each = {place: name for name, place in places.items()}
    copies = {place: _as_float(tensors[name]) for place, name in one_of_each.items()}
    return {name: copies[place] for name, place in places.items()}


def _without_values(tensors: Tensors) -> Tensors:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    # A copy: a tensor that refers to a whole archive would be saved with all of the archive.
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _writer(target: Path, to: Naming) -> Callable[[Tensors, Path, bool], None]:
    by_naming: dict[Naming, dict[str, Callable[[Tensors, Path, bool], None]]] = {
        "detectron2": {".pth": _write_pth, ".pkl": _write_pkl, ".safetensors": _write_safetensors},
        "torchvision": {".pth": _write_flat, ".safetensors": _write_safetensors},
        "virtex": {".pth": _write_virtex},
    }
    writers = by_naming[to]
    if target.suffix not in writers:
        raise UserError(
            f"{target} has an invalid suffix for {to}'s names. Use {' or '.join(sorted(writers))}."
        )
    return writers[target.suffix]


def _write_safetensors(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def _write_flat(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    torch.save(tensors, path)


def _write_virtex(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    torch.save({"model": tensors}, path)


def _write_pth(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    torch.save(_zoo_file(tensors, by_suffix), path)


def _write_pkl(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    with path.open("wb") as file:
        pickle.dump(_zoo_file(arrays, by_suffix), file)


def _zoo_file(model: dict[str, Any], by_suffix: bool) -> dict[str, Any]:
    return {"model": model, "__author__": "virtex_det", "matching_heuristics": by_suffix}
