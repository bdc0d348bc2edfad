"""Finding the files of a model: a path or address, a library's folder, an index and its shards."""

import re
from pathlib import Path
from typing import Any

from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import PathManager

from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.text_files import parse_json

_INDEX = ".index.json"
_MAX_INDEX = 64 << 20  # bytes
# The first of several models has no number.
_OF_ACCELERATE = re.compile(r"(?:pytorch_)?model(?P<number>_[0-9]{1,3})?\.(?:safetensors|bin)")
_SINGLE = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def locate(path: str) -> Path:
    """Return the file of a path or address, or the model in a folder of transformers or timm.

    Raises:
        UserError: it cannot be downloaded or read, or the folder has several models.
    """
    file = local_path(path)
    try:
        return _model_in(file)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def local_path(path: str) -> Path:
    """Return the file of a path or address on disk.

    Files at http addresses, including Detectron2's own weights, are downloaded and checked as the
    zoo's files are. Other addresses are those of Detectron2's path handlers.

    Raises:
        UserError: it cannot be downloaded.
    """
    try:
        if url := _http_address(path):
            # imports requests, which only downloads need
            from virtex_det.model_zoo.download import fetch_address

            return fetch_address(url)
        return Path(
            PathManager.get_local_path(
                str(Path(path).expanduser()) if path.startswith("~") else path
            )
        )
    except UserError:
        raise
    except Exception as error:  # a handler raises any error of its library
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"Cannot download {path}: {reason}. Check the address and the network, or name a local "
            "file."
        ) from error


def _http_address(path: str) -> str:
    """Return the http address of a path, also of Detectron2's own names; "" for other paths."""
    if path.startswith("detectron2://"):
        return f"https://dl.fbaipublicfiles.com/detectron2/{path.removeprefix('detectron2://')}"
    if path.startswith("catalog://"):
        return str(ModelCatalog.get(path.removeprefix("catalog://")))
    return path if path.lower().startswith(("http://", "https://")) else ""


def _model_in(path: Path) -> Path:
    """Return the index or file of the model in a folder; a path that is a file is returned.

    Raises:
        UserError: the folder has several models.
    """
    if not path.is_dir():
        return path
    indices = sorted(path.glob(f"[!.]*{_INDEX}"))
    if len(indices) > 1:
        raise UserError(
            f"{path} has several models; name the index of one: "
            f"{', '.join(each.name for each in indices)}"
        )
    models = {
        each.name: match
        for each in sorted(path.iterdir())
        if (match := _OF_ACCELERATE.fullmatch(each.name))
    }
    if any(match["number"] for match in models.values()):
        raise UserError(
            f"{path} has several models, as Accelerate saves them; name one: "
            f"{', '.join([*models][:5])}"
        )
    single = [path / name for name in _SINGLE if (path / name).is_file()]
    return [*single, *indices, path][0]


def is_index(file: Path) -> bool:
    """Return whether a file is the index of a sharded model."""
    return file.name.endswith(_INDEX) and file.is_file()


def files_of(file: Path) -> list[Path]:
    """Return the files of a model: one file, or an index and its shards, which may be missing.

    Raises:
        UserError: the index cannot be read, or names files outside its folder.
    """
    if not is_index(file):
        return [file]
    return [file, *(file.with_name(shard) for shard in tensors_by_shard(file))]


def tensors_by_shard(index: Path) -> dict[str, list[str]]:
    """Return {file name: names of its tensors} of an index.

    Raises:
        UserError: as `files_of`.
    """
    weight_map = _weight_map(index)
    shards: dict[str, list[str]] = {}
    for name, shard in sorted(weight_map.items(), key=lambda pair: str(pair[1])):
        if not isinstance(shard, str) or not shard or Path(shard).name != shard:
            raise UserError(
                f"{index} puts {name} into {shard!r}, which is not a file name in its folder; "
                "nothing was loaded."
            )
        shards.setdefault(shard, []).append(name)
    return shards


def _weight_map(index: Path) -> dict[str, Any]:
    content = parse_json(read_regular(index, _MAX_INDEX), str(index))
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(
            f"{index} is not an index of a sharded model: it has no weight_map from tensors to "
            "files."
        )
    return weight_map
