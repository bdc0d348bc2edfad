"""The catalogue of protocols: recipes of published numbers, each with its config."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from virtex_det.yaml_files import Text, YamlFile, read_yaml_file

PROTOCOLS = Path(__file__).with_name("catalog.yaml")

Digits = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}\Z")]
Count = Annotated[int, msgspec.Meta(gt=0)]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One recipe.

    Attributes:
        id: its name in records, tables and pages.
        paper: its source; "this package" for our own.
        section: of the paper, or the public file in which it was read.
        config: the config of the package that follows it; of a user's protocol, the whole path.
        settings: eight digits of a hash of that config's settings, which reveal later edits.
        dataset_version: the data in words.
        train_images: images of the whole training set, for epochs; None if it depends on how the
            set was made.
        notes: other facts to know before comparing.
    """

    id: Text
    paper: Text
    section: str
    config: Text
    settings: Digits
    dataset_version: Text
    train_images: Count | None = None
    notes: str = ""


@cache
def protocols() -> dict[str, Protocol]:
    """Return every protocol by its id, in the order of catalog.yaml.

    Example:
        >>> protocols()["coco-segm-2x"].config
        'configs/detectron2/coco_segm_default_init_2x.yaml'
    """
    file = read_yaml_file(PROTOCOLS)
    return {name: protocol_from(file, fields, name) for name, fields in file.content.items()}


def protocol_from(file: YamlFile, fields: Mapping[str, Any], *place: str | int) -> Protocol:
    """Return the protocol that a file describes; the last step to its place is its id.

    Raises:
        UserError: a field is unknown, missing or invalid; says file and line.
    """
    return file.convert({"id": place[-1], **fields}, Protocol, *place)
