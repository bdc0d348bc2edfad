"""The catalogue of protocols: recipes of published numbers, each with its config."""

import dataclasses
from functools import cache
from pathlib import Path

import yaml

PROTOCOLS = Path(__file__).with_name("catalog.yaml")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One recipe.

    Attributes:
        id: its name in records, tables and pages.
        paper: its source; "this package" for our own.
        section: of the paper, or the public file in which it was read.
        config: the config of the package that follows it.
        settings: eight digits of a hash of that config's settings, which reveal later edits.
        dataset_version: the data in words.
        train_images: images of the whole training set, for epochs; None if it depends on how the
            set was made.
        notes: other facts to know before comparing.
    """

    id: str
    paper: str
    section: str
    config: str
    settings: str
    dataset_version: str
    train_images: int | None = None
    notes: str = ""


@cache
def protocols() -> dict[str, Protocol]:
    """Return every protocol by its id, in the order of catalog.yaml.

    Example:
        >>> protocols()["coco-segm-2x"].config
        'configs/detectron2/coco_segm_default_init_2x.yaml'
    """
    records = yaml.safe_load(PROTOCOLS.read_text())
    return {name: Protocol(id=name, **fields) for name, fields in records.items()}
