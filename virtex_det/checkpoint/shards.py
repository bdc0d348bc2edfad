"""Models that lie in several files, with an index that says which tensor is where, as transformers saves large ones."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from virtex_det.checkpoint.reading import file_sha256, read_file
from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.text_files import parse_json

_INDEX = ".index.json"
_MAX_INDEX = 64 << 20  # bytes
_OF_ACCELERATE = re.compile(r"(?:pytorch_)?model(?P<number>_[0-9]{1,3})?\.(?:safetensors|bin)")  # the first has none
_SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def model_file(path: Path) -> Path:
    """Return the one model in a folder that transformers or timm wrote: its index, or its file. A file is itself.

    Raises:
        UserError: the folder has several models.
    """
    if not path.is_dir():
        return path
    indices = sorted(path.glob(f"[!.]*{_INDEX}"))
    if len(indices) > 1:
        raise UserError(f"{path} has several models; name the index of one: {', '.join(each.name for each in indices)}")
    models = {each.name: match for each in sorted(path.iterdir()) if (match := _OF_ACCELERATE.fullmatch(each.name))}
    if any(match["number"] for match in models.values()):
        raise UserError(f"{path} has several models, as Accelerate saves them; name one: {', '.join([*models][:5])}")
    single = [path / name for name in _SINGLE if (path / name).is_file()]
    return [*single, *indices, path][0]


def is_index(file: Path) -> bool:
    """Return whether a file is the index of a sharded model."""
    return file.name.endswith(_INDEX) and file.is_file()


def read_shards(index: Path, *, mmap: bool = True) -> dict[str, torch.Tensor]:
    """Read all tensors that an index names, each from the file that it says.

    Raises:
        UserError: the index cannot be read or names other files than those beside it; a file or tensor is not there.
    """
    tensors: dict[str, torch.Tensor] = {}
    for shard, names in _by_shard(index).items():
        file = index.with_name(shard)
        if not file.is_file():
            raise UserError(f"{index} names {shard}, which is not beside it: fetch that file too.")
        content = read_file(file, mmap=mmap)
        for name in names:
            value = content.get(name) if isinstance(content, Mapping) else None
            if not isinstance(value, torch.Tensor):
                raise UserError(f"{index} says that {name} lies in {shard}, and it does not: fetch both again.")
            tensors[name] = value
    return tensors


def shards_sha256(index: Path) -> str:
    """Return one hash of an index and all files that it names."""
    digest = hashlib.sha256()
    for file in shard_files(index):
        digest.update(file_sha256(file).encode())
    return digest.hexdigest()


def shard_files(index: Path) -> list[Path]:
    """Return an index and all files that it names, which need not be there.

    Raises:
        UserError: the index cannot be read, or names other files than those beside it.
    """
    return [index, *(index.with_name(shard) for shard in _by_shard(index))]


def _by_shard(index: Path) -> dict[str, list[str]]:
    weight_map = _weight_map(index)
    shards: dict[str, list[str]] = {}
    for name, shard in sorted(weight_map.items(), key=lambda pair: str(pair[1])):
        if not isinstance(shard, str) or not shard or Path(shard).name != shard:
            raise UserError(f"{index} puts {name} into {shard!r}, which is no file beside it; nothing was loaded.")
        shards.setdefault(shard, []).append(name)
    return shards


def _weight_map(index: Path) -> dict[str, Any]:
    content = parse_json(read_regular(index, _MAX_INDEX), str(index))
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} is no index of a sharded model: it has no weight_map from tensors to files.")
    return weight_map
