"""A weights file of any family into one that stock Detectron2, safetensors or torchvision read."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from safetensors.torch import save_file
from torch import nn

from virtex_det.checkpoint.loading import LoadReport, fill
from virtex_det.checkpoint.names import to_torchvision
from virtex_det.checkpoint.reading import file_sha256, local_path, read_file
from virtex_det.checkpoint.recognition import Weights, recognise
from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.utils import replacing

Naming = Literal["detectron2", "torchvision"]
Tensors = dict[str, torch.Tensor]


def convert(source: str, target: str | Path, *, family: str = "", to: Naming = "detectron2") -> LoadReport:
    """Write a backbone, or a whole detector, under Detectron2's or torchvision's names; halves become floats.

    Detectron2 finds a backbone's place by the ends of its names (``matching_heuristics``), so that one file fits FPN
    and C4; a detector's names are already whole.

    Args:
        source: a file, or an address that Detectron2's path handlers know.
        target: the file to write; its suffix says how: .pth, .pkl (Detectron2 alone) or .safetensors.
        family: of the source, where its content does not tell.
        to: whose names.

    Returns:
        The report of loading the source into the network that its tensors describe.

    Raises:
        UserError: the source cannot be read or is not whole, or the target cannot be written so. Nothing is written.
    """
    target = Path(target)
    write = _writer(target, to)
    file = local_path(source)
    weights = recognise(read_file(file), source, family)
    report = fill(_network(weights), weights, source)._replace(sha256=file_sha256(file))
    tensors = _named(weights, to)
    try:
        with replacing(target) as unfinished:
            write(tensors, unfinished, not weights.format.detectron2_names)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror}.") from error
    return report


def _network(weights: Weights) -> nn.Module:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_backbone"
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = bool(weights.format.stride_in_1x1)
    for key, value in weights.architecture.config().items():
        cfg.merge_from_list([key, value])
    with torch.device("meta"):  # shapes alone are needed
        return build_backbone(cfg, ShapeSpec(channels=3))


def _named(weights: Weights, to: Naming) -> Tensors:
    if to == "torchvision":
        if weights.architecture.stem != "basic" and weights.format.stem != "clip":
            raise UserError("torchvision has no network with a deep stem; only `--to detectron2` can name its tensors.")
        names = {to_torchvision(canonical): name for canonical, name in weights.backbone.items()}
    elif weights.format.detectron2_names:
        names = {name: name for name in weights.tensors}
    else:
        names = weights.backbone
    return {new: _as_float(weights.tensors[old]) for new, old in names.items()}


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    # A copy of its own: a tensor that refers to a whole archive would be saved with all of it.
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _writer(target: Path, to: Naming) -> Callable[[Tensors, Path, bool], None]:
    writers: dict[str, Callable[[Tensors, Path, bool], None]] = {".safetensors": _write_safetensors}
    if to == "detectron2":
        writers |= {".pth": _write_pth, ".pkl": _write_pkl}
    else:
        writers |= {".pth": _write_flat}
    if target.suffix not in writers:
        raise UserError(f"{target} must end in {', '.join(sorted(writers))} to be written with {to}'s names.")
    return writers[target.suffix]


def _write_safetensors(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def _write_flat(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    torch.save(tensors, path)


def _write_pth(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    torch.save(_zoo_file(tensors, by_suffix), path)


def _write_pkl(tensors: Tensors, path: Path, by_suffix: bool) -> None:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    with path.open("wb") as file:
        pickle.dump(_zoo_file(arrays, by_suffix), file)


def _zoo_file(model: dict[str, Any], by_suffix: bool) -> dict[str, Any]:
    return {"model": model, "__author__": "virtex_det", "matching_heuristics": by_suffix}
