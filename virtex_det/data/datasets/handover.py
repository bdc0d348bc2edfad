"""A store of datasets loaded for a check, until their next load takes them."""

from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


class HandOver:
    """Keeps one value per dataset until it is taken.

    If the dataset is registered again or its file changes, the value is forgotten.

    Example:
        >>> loaded, dicts = HandOver(), [{"image_id": 1}]
        >>> loaded.keep("coco_2017_val", dicts)
        >>> loaded.take("coco_2017_val") is dicts, loaded.take("coco_2017_val")
        (True, None)
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, Any]] = {}

    def keep(self, name: str, value: Any) -> None:
        """Keep a value for the dataset of this name."""
        self._kept[name] = (_state(name), value)

    def take(self, name: str) -> Any:
        """Return and forget the dataset's value; None if it has none or has changed."""
        state, value = self._kept.pop(name, (None, None))
        return value if state is not None and state == _state(name) else None

    def look(self, name: str) -> Any:
        """Return the dataset's value and keep it; None as in ``take``."""
        value = self.take(name)
        if value is not None:
            self.keep(name, value)
        return value

    def forget(self) -> None:
        """Forget everything."""
        self._kept.clear()


_FILES = ("json_file", "boxes_json", "dirname")  # in a dataset's metadata


def _state(name: str) -> tuple[Any, ...]:
    metadata = MetadataCatalog.get(name)
    paths = [Path(str(path)) for key in _FILES if (path := metadata.get(key))]
    stats = [path.stat() for path in paths if path.exists()]
    return DatasetCatalog[name], *((stat.st_mtime_ns, stat.st_size) for stat in stats)
