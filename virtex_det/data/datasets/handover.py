"""Keeps what was loaded for a check until it is loaded again, so that nothing is read twice or kept for long."""

from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


class HandOver:
    """Keeps what was made of a data set until it is taken, once; a name registered anew or a file rewritten forgets it.

    Example:
        >>> loaded, dicts = HandOver(), [{"image_id": 1}]
        >>> loaded.keep("coco_2017_val", dicts)
        >>> loaded.take("coco_2017_val") is dicts, loaded.take("coco_2017_val")
        (True, None)
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, Any]] = {}

    def keep(self, name: str, value: Any) -> None:
        """Keep a value of the data set of that name."""
        self._kept[name] = (_state(name), value)

    def take(self, name: str) -> Any:
        """Return what is kept of the data set and forget it; None where nothing is, or the data set has changed."""
        state, value = self._kept.pop(name, (None, None))
        return value if state is not None and state == _state(name) else None

    def look(self, name: str) -> Any:
        """Return what is kept of the data set, and keep it; None as in ``take``."""
        value = self.take(name)
        if value is not None:
            self.keep(name, value)
        return value

    def forget(self) -> None:
        """Forget everything."""
        self._kept.clear()


def _state(name: str) -> tuple[Any, ...]:
    metadata = MetadataCatalog.get(name)
    paths = [Path(str(path)) for key in ("json_file", "dirname") if (path := metadata.get(key))]
    stats = [path.stat() for path in paths if path.exists()]
    return DatasetCatalog[name], *((stat.st_mtime_ns, stat.st_size) for stat in stats)
