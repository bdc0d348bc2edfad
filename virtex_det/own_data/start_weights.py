"""The weights that a first run starts from, and the base config that suits them."""

from pathlib import Path
from typing import Any, NamedTuple

from virtex_det.checkpoint import backbone_keys
from virtex_det.config import load_config, override
from virtex_det.engine.preflight import check_weights
from virtex_det.errors import UserError
from virtex_det.model_zoo.catalog import find
from virtex_det.model_zoo.handler import PREFIX
from virtex_det.own_data.look import BASE


class Start(NamedTuple):
    """What a run starts from.

    Attributes:
        weights: value of MODEL.WEIGHTS.
        base: the config that the run's own is a diff of.
        keys: of the weights' network and pixels, by dotted key.
        what: what they are, in words.
    """

    weights: str
    base: str
    keys: dict[str, Any]
    what: str


def find_start(weights: str) -> Start:
    """Find what a run starts from.

    Args:
        weights: a name of the model zoo, which is not fetched; a file or an address; "" for random
            init.

    Raises:
        UserError: the name is unknown, or the file cannot be read or does not fit a detector.
    """
    if not weights:
        return Start("", BASE, {}, "random init")
    if _is_file(weights):
        base = load_config(BASE, {"MODEL.WEIGHTS": weights})
        keys = backbone_keys(base)
        check_weights(override(base, keys), weights)
        return Start(weights, BASE, keys, "its network is read from the file")
    try:
        record = find(weights.removeprefix(PREFIX))
    except UserError as error:
        raise UserError(
            f"--weights {weights!r} is neither a file nor a name of the model zoo.\n{error}"
        ) from error
    what = f"{record.family}, {record.architecture}: {record.pretraining}"
    has_pyramid = "fpn" in load_config(record.config).MODEL.BACKBONE.NAME
    base = record.config if has_pyramid else BASE
    return Start(PREFIX + record.name, base, record.network, what)


def _is_file(weights: str) -> bool:
    is_elsewhere = "://" in weights and not weights.startswith(PREFIX)
    return is_elsewhere or Path(weights).expanduser().exists()
