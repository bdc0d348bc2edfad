"""``virtex://NAME`` as a path in Detectron2."""

from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import PathHandler

from virtex_det.errors import UserError

PREFIX = "virtex://"


class VirtexHandler(PathHandler):
    """Resolves names of the model zoo, and downloads a file at its first use."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        # imports requests, which only downloads need
        from virtex_det.model_zoo.catalog import find
        from virtex_det.model_zoo.download import fetch

        self._check_kwargs(kwargs)
        return str(fetch(find(path.removeprefix(PREFIX))))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rb"):
            raise UserError(
                f"{path} is a published weights file, which can only be read; it cannot be opened "
                f"with mode {mode!r}."
            )
        return Path(self._get_local_path(path, **kwargs)).open(mode, buffering)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        from virtex_det.model_zoo.catalog import find

        try:
            find(path.removeprefix(PREFIX))
        except UserError:
            return False
        return True

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path, **kwargs)
