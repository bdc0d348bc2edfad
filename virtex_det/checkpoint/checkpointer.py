"""The checkpointer of train_net: strict loading, exact resuming, atomic saving."""

import logging
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from torch import nn

from virtex_det.bert_folder import VOCABULARY
from virtex_det.checkpoint.compatibility import network_facts
from virtex_det.checkpoint.formats import Pixels
from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.checkpoint.last import LAST_CHECKPOINT, find_last, name_last, other_checkpoints
from virtex_det.checkpoint.loading import fill
from virtex_det.checkpoint.report import RANDOM_INIT, LoadReport
from virtex_det.checkpoint.sources import open_file, open_for
from virtex_det.checkpoint.weights import Required, own_weights
from virtex_det.config.roles import FILES
from virtex_det.errors import UserError
from virtex_det.utils import replacing

_TOKENIZER = "tokenizer_sha256"
_TOKENIZER_KEY = "INPUT.CAPTION.TOKENIZER"
_FILES = "files_sha256"  # of the other files that a model learns with, by config key
_CLASSES = "classes"
_TEXT_ENCODER = "text_encoder"
# What a checkpoint says of its model, besides the states of model, trainer and so on.
_NOT_STATES = ("model", "pixels", "network", _CLASSES, _TOKENIZER, _FILES, _TEXT_ENCODER)
_WORDS = "embedding.words.weight"  # one row per piece of the vocabulary


class TransferCheckpointer(DetectionCheckpointer):
    """A DetectionCheckpointer whose loads are whole or raise, and whose saves are whole files.

    Attributes:
        report: the LoadReport of the last load or resume; None before.
        classes: names of the classes that the model is trained on, which are saved with it; after a
            resume or the load of a whole model, the names in the file.

    Example:
        >>> checkpointer = TransferCheckpointer(model, "output", trainer=trainer)  # doctest: +SKIP
        >>> checkpointer.resume_or_load("virtex.pth", resume=False)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        allow_partial: bool = False,
        require: Required = "backbone",
        cfg: CfgNode | None = None,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            model: the model to load and save, with or without DDP.
            save_dir: the run folder; "" for a checkpointer that only loads.
            save_to_disk: write files; by default only the main process does.
            allow_partial: accept weights that leave required tensors at random init.
            require: what weights must fill: the backbone, or the whole model for evaluation.
            cfg: weights that contradict this config are refused. Its pixel format and the hashes of
                its tokenizer, concepts and clusters are saved with the model, and compared when a
                whole model is loaded.
            checkpointables: other parts of a checkpoint, such as the trainer with optimizer and
                schedule.
        """
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.logger = logging.getLogger(__name__)
        self.allow_partial = allow_partial
        self.require: Required = require
        self.cfg = cfg
        self._tokenizer_sha256 = _tokenizer_sha256(cfg)
        self._files_sha256 = _files_sha256(cfg)
        self.report: LoadReport | None = None
        self.classes: tuple[str, ...] = ()

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights of any known family and write their load report into the run folder.

        Args:
            path: a file or address; "" leaves the model at random init.
            checkpointables: names of those to restore, if the file has them; by default all.

        Returns:
            Other values of a file with Detectron2's names, such as ``iteration``.

        Raises:
            UserError: the file cannot be read or does not fill the required tensors. The model is
                unchanged.
        """
        if not path:
            self._start_from_random()
            return {}
        wanted = list(self.checkpointables) if checkpointables is None else checkpointables
        mmap = not wanted  # an optimizer may keep the tensors that it is given
        source = open_for(tuple(self.model.state_dict()), path, self.require, self.cfg, mmap=mmap)
        content, weights = source.content, source.weights
        if self.require == "model":
            self._check_tokenizer(content, path)
            self._check_files(content, path)
            self.classes = classes_in(content)
        report = fill(
            self.model,
            weights,
            path,
            require=self.require,
            allow_partial=self.allow_partial,
            cfg=self.cfg,
        )
        text_encoder = text_encoder_name(self.model) or _text_encoder_in(content)
        self._publish(report._replace(sha256=source.sha256(), text_encoder=text_encoder))
        if (
            not weights.format.detectron2_names
            or not isinstance(content, Mapping)
            or "model" not in content
        ):
            return {}
        return self._restore(content, [key for key in wanted if key in content], path)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from this run's last checkpoint, or load weights from ``path``.

        Args:
            path: a file or address.
            resume: resume from the last checkpoint if there is one.

        Returns:
            Other values in the file, such as ``iteration``.
        """
        if resume and self.has_checkpoint():
            return self.resume()
        if resume:
            self.logger.warning(
                "No checkpoint to resume from in %r; starting from MODEL.WEIGHTS %r",
                self.save_dir,
                path,
            )
        return self.load(path, checkpointables=[])

    def resume(self) -> dict[str, Any]:
        """Restore the whole model and every checkpointable from this run's last checkpoint.

        Raises:
            UserError: it cannot be read or does not fit the model; names the folder's other
                checkpoints.
        """
        path = self.get_checkpoint_file()
        try:
            opened = open_file(path, mmap=False, hashed=True)
            content = opened.content
            absent = {"model", *self.checkpointables} - set(
                content if isinstance(content, Mapping) else ()
            )
            if absent:
                raise UserError(
                    f"{path} is not a checkpoint of a training: it has no "
                    f"{' and no '.join(sorted(absent))}."
                )
            self._check_tokenizer(content, path)
            self._check_files(content, path)
            report = fill(self.model, own_weights(content), path, require="model")
            self.report = report._replace(sha256=opened.sha256())
            rest = self._restore(content, list(self.checkpointables), path)
            self.classes = classes_in(content)
        except UserError as error:
            raise UserError(
                f"Cannot resume. {error}\n{other_checkpoints(self.save_dir, Path(path).name)}"
            ) from error
        self.logger.info(
            "Resumed %s from %s", ", ".join(["the model", *self.checkpointables]), path
        )
        return rest

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and tag it as the last checkpoint.

        If the save is interrupted, the previous checkpoint stays.

        Args:
            name: file name without folder and suffix.
            kwargs: plain values to save with it.

        Raises:
            UserError: the file cannot be written, for example because the disk is full.
            TypeError: the checkpoint would hold more than tensors and plain values.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        self.logger.info("Saving checkpoint to %s", path)
        try:
            with replacing(path) as unfinished:
                torch.save(
                    {"model": self.model.state_dict(), **self._origin(), **states, **kwargs},
                    unfinished,
                )
                _check_plain(unfinished)  # an unreadable file must not replace a good one
            self.tag_last_checkpoint(path.name)
        except (OSError, RuntimeError) as error:
            raise UserError(self._not_saved(path, error)) from error

    def has_checkpoint(self) -> bool:
        """Return whether the run folder has a last checkpoint; False without a run folder."""
        return bool(self.save_dir) and super().has_checkpoint()

    def get_checkpoint_file(self) -> str:
        """Return the path of the run's last checkpoint, "" if it has none.

        Raises:
            UserError: the file that ``last_checkpoint`` names is not in the run folder.
        """
        return find_last(self.save_dir) if self.has_checkpoint() else ""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record, atomically, which file to resume from."""
        name_last(self.save_dir, last_filename_basename)

    def _start_from_random(self) -> None:
        if self.require == "model":
            raise UserError(
                "There are no weights to evaluate. Set MODEL.WEIGHTS to a trained model, or use "
                "--resume."
            )
        self.logger.info("MODEL.WEIGHTS is empty: the model starts from random init")
        frozen = 0 if self.cfg is None else self.cfg.MODEL.BACKBONE.FREEZE_AT
        if frozen > 0:
            self.logger.warning(
                "MODEL.BACKBONE.FREEZE_AT %d freezes layers at random init, which will never "
                "learn. Set it to 0, or MODEL.WEIGHTS to pretrained weights.",
                frozen,
            )
        self._publish(LoadReport(RANDOM_INIT, text_encoder=text_encoder_name(self.model)))

    def _publish(self, report: LoadReport) -> None:
        self.report = report
        if report.path:
            state = "partly " if report.partial else ""
            heading = (
                f"{state}loaded {report.path} (format {report.format}, sha256 {report.sha256[:12]})"
            )
            is_incomplete = report.partial or report.also_in_model
            self.logger.log(
                logging.WARNING if is_incomplete else logging.INFO,
                "%s\n%s",
                heading,
                report.table(),
            )
        if self.save_dir and self.save_to_disk:
            report.write(self.save_dir)

    def _restore(self, content: Mapping[str, Any], keys: list[str], path: str) -> dict[str, Any]:
        for key in keys:
            try:
                self.checkpointables[key].load_state_dict(content[key])
            except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
                raise UserError(
                    f"The state of {key!r} in {path} does not fit this config: {error}. Use the "
                    "config of the run that wrote it."
                ) from error
        return {
            key: value
            for key, value in content.items()
            if key not in _NOT_STATES and key not in keys
        }

    def _origin(self) -> dict[str, Any]:
        """Return facts that tensors do not show: classes, pixels, strides, pools, text files."""
        facts: dict[str, Any] = {}
        if self.classes:
            facts[_CLASSES] = list(self.classes)
        if name := text_encoder_name(self.model):
            facts[_TEXT_ENCODER] = name
        if self.cfg is None:
            return facts
        pixels = Pixels(self.cfg.INPUT.FORMAT, self.cfg.MODEL.PIXEL_MEAN, self.cfg.MODEL.PIXEL_STD)
        tokenizer = {_TOKENIZER: self._tokenizer_sha256} if self._tokenizer_sha256 else {}
        files = {_FILES: self._files_sha256} if self._files_sha256 else {}
        return {
            "pixels": pixels._asdict(),
            "network": network_facts(self.cfg),
            **facts,
            **tokenizer,
            **files,
        }

    def _check_tokenizer(self, content: Any, path: str) -> None:
        saved = content.get(_TOKENIZER) if isinstance(content, Mapping) else None
        if (
            self.cfg is None
            or not saved
            or not isinstance(saved, str)
            or self._tokenizer_sha256 in ("", saved)
        ):
            return
        raise UserError(
            f"{path} was trained with another vocabulary than INPUT.CAPTION.TOKENIZER "
            f"{_tokenizer_of(self.cfg)}:\n"
            f"  {_pieces(own_weights(content).tensors)} pieces, sha256 {saved[:12]} in the file\n"
            f"  {_pieces(self.model.state_dict())} pieces, sha256 {self._tokenizer_sha256[:12]} in "
            "the config\n"
            "Set INPUT.CAPTION.TOKENIZER to the vocabulary.model in the folder of the run that "
            "wrote the file."
        )

    def _check_files(self, content: Any, path: str) -> None:
        """Refuse other concepts or clusters than in training, whose numbers mean other words."""
        saved = content.get(_FILES) if isinstance(content, Mapping) else None
        if not isinstance(saved, Mapping):
            return
        for key, now in self._files_sha256.items():
            if saved.get(key, now) != now:
                raise UserError(
                    f"{path} was trained with another file than {key} {_file_of(self.cfg, key)}: "
                    f"sha256 {str(saved[key])[:12]} in the checkpoint, {now[:12]} in the config.\n"
                    f"Set {key} to the {FILES[key]} in the folder of the run that wrote the "
                    "checkpoint, or to the file that the run started with."
                )

    def _not_saved(self, path: Path, error: Exception) -> str:
        reason = str(error).partition("\n")[0]
        free = shutil.disk_usage(path.parent).free // 2**20 if path.parent.exists() else 0
        tag = path.with_name(LAST_CHECKPOINT)
        last = (
            f"The previous checkpoint {tag.read_text(errors='replace')} is untouched"
            if tag.is_file()
            else "There is no previous checkpoint"
        )
        return (
            f"Cannot save checkpoint {path}: {reason}. The disk has {free} MB free. {last}.\n"
            "Free disk space, or make the folder writable; then continue with --resume."
        )


def classes_in(content: Any) -> tuple[str, ...]:
    """Return the class names in the content of a checkpoint; empty if it has none."""
    names = content.get(_CLASSES) if isinstance(content, Mapping) else None
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if names and is_list else ()


def text_encoder_name(model: nn.Module) -> str:
    """Return the name of a model's pretrained text encoder, "" without one."""
    return getattr(getattr(model, "text_encoder", None), "name", "")


def _text_encoder_in(content: Any) -> str:
    """Return the name of the text encoder that the content of a checkpoint was trained with."""
    name = content.get(_TEXT_ENCODER) if isinstance(content, Mapping) else None
    return name if isinstance(name, str) else ""


def _pieces(tensors: Mapping[str, torch.Tensor]) -> int | str:
    """Return the size of a model's vocabulary; "?" if the model embeds no words."""
    words = (len(tensor) for name, tensor in tensors.items() if name.endswith(_WORDS))
    return next(words, "?")


def _tokenizer_of(cfg: CfgNode | None) -> str:
    return _file_of(cfg, _TOKENIZER_KEY)


def _file_of(cfg: CfgNode | None, key: str) -> str:
    """Return the file that a key of INPUT.CAPTION names; "" in a config without the key."""
    return "" if cfg is None else cfg.INPUT.get("CAPTION", {}).get(key.rpartition(".")[2], "")


def _tokenizer_sha256(cfg: CfgNode | None) -> str:
    """Return the hash of the config's tokenizer file; "" if it names no file, as for detectors.

    A BERT's folder has the hash of its vocabulary; a name on the hub is not downloaded for it.
    """
    name = _tokenizer_of(cfg)
    if not name:
        return ""
    found = [Path(name), *(Path(name) / file for file in VOCABULARY)]
    return next((file_sha256(path) for path in found if path.is_file()), "")


def _files_sha256(cfg: CfgNode | None) -> dict[str, str]:
    """Return the hash of each file besides the tokenizer that the config names and that is here."""
    named = {key: _file_of(cfg, key) for key in FILES if key != _TOKENIZER_KEY}
    return {key: file_sha256(name) for key, name in named.items() if name and Path(name).is_file()}


def _check_plain(path: Path) -> None:
    try:
        torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise TypeError(f"A checkpoint may hold tensors and plain values only: {error}") from error
