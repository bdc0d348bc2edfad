"""The configs of a matrix's runs: as its files say, and with what runs take from their data."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from virtex_det.config import load_config, with_options
from virtex_det.config.data_names import keys_of_data
from virtex_det.data.following import follow_data
from virtex_det.engine.run_folder import CONFIG, read_beginning
from virtex_det.experiments.runs import Run
from virtex_det.protocols.card import is_svm_probe


@cache
def config_of(path: Path, options: tuple[str, ...]) -> CfgNode:
    """Return the config that several runs share; to build it once saves seconds.

    It is without what runs take from their data, which no page needs to load.

    Raises:
        UserError: the file is missing, or a key or value does not fit.
    """
    return load_config(str(path), list(options))


@cache
def trained_config(path: Path, options: tuple[str, ...]) -> CfgNode:
    """Return the config of ``config_of`` with what its runs take from their data.

    Raises:
        UserError: the data are missing or invalid.
    """
    return follow_data(config_of(path, options))


def begun_config(cfg: CfgNode, runs: Iterable[Run]) -> CfgNode:
    """Return a config with what one of its runs took from its data, as the run's folder says.

    Args:
        cfg: of ``config_of``; it stays as it is if no run has begun.
        runs: of this config.
    """
    keys = keys_of_data(cfg)
    folders = [run.folder for run in runs if (run.folder / CONFIG).exists()]
    if not keys or not folders:
        return cfg
    began = read_beginning(folders[0]).config
    taken: list[Any] = []
    for key in keys:
        if key in began:
            taken += [key, began[key]]
    return with_options(cfg, taken)


def is_probe(path: Path) -> bool:
    """Return whether the runs of a config fit SVMs to frozen features."""
    cfg = config_of(path, ())
    return is_svm_probe(cfg)


def shared_options(path: Path, options: Mapping[str, Any], fraction: float) -> tuple[str, ...]:
    """Return the options that the runs of a protocol share at a fraction of the labels.

    Args:
        path: config of the protocol.
        options: those of the matrix.
        fraction: of the labels.
    """
    options = {"DATASETS.TRAIN_FRACTION": fraction, "TEST.EVAL_PERIOD": 0, **options}
    if is_probe(path):
        # Its SVMs follow no schedule, and these keys would be departures from its protocol.
        options = {k: value for k, value in options.items() if not k.startswith("SOLVER.")}
    return as_words(options)


def as_words(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return config keys and values as the words of a command line."""
    return tuple(str(word) for pair in options.items() for word in pair)
