"""Split files, which name the images of a subset: manifests, lists of ids, index files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data.build import filter_images_with_only_crowd_annotations

from virtex_det.config.data_names import short_names
from virtex_det.data.datasets.ids import is_name
from virtex_det.data.datasets.subsets import instances_of, manifest_sha256, rank_images
from virtex_det.errors import UserError
from virtex_det.text_files import parse_json, read_text, split_lines
from virtex_det.utils import write_atomically

Dicts = list[dict[str, Any]]

_FORMS = (
    "Expected a manifest (from tools/subset.py), a list of image ids, one per line, or an index "
    "file in Unbiased "
    'Teacher\'s format, {"10.0": {"1": [4464, ...]}}.'
)
_MANIFEST_KEYS = {"fraction", "seed", "stratified", "sha256", "ids"}


class Subset(NamedTuple):
    """A choice of training images by DATASETS.TRAIN_FRACTION, SUBSET_SEED and SUBSET_STRATIFIED."""

    fraction: float = 1.0
    seed: int = 0
    stratified: bool = False

    def options(self) -> str:
        """Return the subset as config keys and values."""
        return (
            f"DATASETS.TRAIN_FRACTION {self.fraction} DATASETS.SUBSET_SEED {self.seed} "
            f"DATASETS.SUBSET_STRATIFIED {self.stratified}"
        )


class Manifest(NamedTuple):
    """The images of a subset of one or several datasets.

    Attributes:
        ids: sorted image ids by dataset name.
        subset: the subset's fraction, seed and stratification.
    """

    ids: dict[str, list[int | str]]
    subset: Subset

    @property
    def sha256(self) -> str:
        """The hash of the ids, independent of the datasets' names."""
        return manifest_sha256(*self.ids.values())

    def write(self, path: str | Path) -> None:
        """Write the manifest, atomically."""
        content = {**self.subset._asdict(), "sha256": self.sha256, "ids": self.ids}
        write_atomically(path, json.dumps(content) + "\n")


def make_manifest(chosen: Mapping[str, Dicts], subset: Subset) -> Manifest:
    """Return the manifest of the chosen images of each dataset."""
    ids = {name: _sorted(entry["image_id"] for entry in dicts) for name, dicts in chosen.items()}
    return Manifest(ids, subset)


def subset_of(path: str | Path) -> Subset | None:
    """Return the subset that a manifest states; None for a file of another format.

    Raises:
        UserError: the file cannot be read.
    """
    content = _read(Path(path))
    return _read_manifest(path, content)[1] if _is_manifest(content) else None


def take_split(path: str | Path, sets: Mapping[str, Dicts], subset: Subset) -> dict[str, Dicts]:
    """Take the images that a split file names.

    An index file in Unbiased Teacher's format has indices into Detectron2's list of training
    images, without images that have no annotations. The entry of ``100 * subset.fraction`` percent
    and ``subset.seed`` is used.

    Args:
        path: the file; its content determines its format.
        sets: all images of each training dataset.
        subset: the subset in the config, which must match the file.

    Returns:
        The chosen images of each dataset, in their original order.

    Raises:
        UserError: the file cannot be read, is of another subset, or names an image twice or an
            unknown image.
    """
    content = _read(Path(path))
    if _is_manifest(content):
        ids, stated = _read_manifest(path, content)
        _check_subset(path, stated, subset)
        ids = _by_our_names(path, ids, list(sets))
        remade = "It is for another data set or was edited: make it again with tools/subset.py."
        _check_share(path, sum(map(len, ids.values())), sets, subset.fraction, remade)
        return {name: _take_ids(path, ids[name], name, dicts) for name, dicts in sets.items()}
    if subset.stratified:
        raise UserError(
            f"{path} does not state a stratification: set DATASETS.SUBSET_STRATIFIED False."
        )
    if isinstance(content, dict):
        return _take_places(path, content, sets, subset)
    return _take_listed(path, content, sets, subset.fraction)


def write_ids(path: str | Path, manifest: Manifest) -> None:
    """Write only the ids of a manifest, one per line.

    Raises:
        UserError: several datasets have an id in common.
    """
    ids = list(map(str, chain(*manifest.ids.values())))
    if len(set(ids)) < len(ids):
        raise UserError(
            f"{', '.join(manifest.ids)} have image ids in common, which a list cannot "
            "distinguish: use a manifest."
        )
    write_atomically(path, "".join(f"{image_id}\n" for image_id in ids))


def write_index_file(
    path: str | Path, sets: Mapping[str, Dicts], subsets: Iterable[Subset]
) -> None:
    """Write subsets in Unbiased Teacher's format, which other projects read as well.

    The format ignores images without annotations and rounds down. A subset is the first images in
    our ranking of those with annotations: mostly the images of the other formats, but slightly
    fewer.

    Args:
        path: file to write.
        sets: all images of each dataset.
        subsets: the subsets to write, one entry each.
    """
    dicts = _annotated(sets)
    entries: dict[str, dict[str, list[int]]] = {}
    for subset in subsets:
        percent = str(round(100 * subset.fraction, 9))
        ranked = rank_images(dicts, subset.seed, subset.stratified)
        entries.setdefault(percent, {})[str(subset.seed)] = sorted(ranked[: _count(percent, dicts)])
    write_atomically(path, json.dumps(entries) + "\n")


def _sorted(ids: Iterable[int | str]) -> list[int | str]:
    return sorted(ids, key=lambda image_id: (isinstance(image_id, str), image_id))


def _read(path: Path) -> Any:
    """Return the file's JSON, or its lines."""
    if not path.exists():
        raise UserError(
            f"There is no split file {path} (DATASETS.SUBSET_FILE).\n"
            "Check the path, or make one: python tools/subset.py."
        )
    try:
        text = read_text(path).strip()
        if text.startswith(("{", "[")):
            return parse_json(text, str(path))
        return [line.strip() for line in split_lines(text) if line.strip()]
    except UserError as error:
        raise UserError(f"Cannot read {path} as a split file: {error}\n{_FORMS}") from error


def _is_manifest(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() >= _MANIFEST_KEYS


def _read_manifest(
    path: str | Path, content: dict[str, Any]
) -> tuple[dict[str, list[int | str]], Subset]:
    try:
        ids = {str(name): _checked_ids(path, ids) for name, ids in content["ids"].items()}
        subset = Subset(content["fraction"], content["seed"], content["stratified"])
        kinds = (
            type(subset.fraction) in (int, float),
            type(subset.seed) is int,
            type(subset.stratified) is bool,
        )
        if not all(kinds):
            raise ValueError(
                f"fraction, seed and stratified are {subset.fraction!r}, {subset.seed!r}, "
                f"{subset.stratified!r}"
            )
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a valid manifest: {error}\n{_FORMS}") from error
    if manifest_sha256(*ids.values()) != content["sha256"]:
        raise UserError(
            f"{path}: its ids have the sha256 {manifest_sha256(*ids.values())}, but it says "
            f"{content['sha256']}. The file was edited or damaged.\n"
            "Make it again with tools/subset.py."
        )
    return ids, subset


def _checked_ids(path: str | Path, ids: Any) -> list[int | str]:
    if not isinstance(ids, list) or not all(
        type(image_id) is int or is_name(image_id) for image_id in ids
    ):
        raise UserError(f"{path} has no list of image ids.\n{_FORMS}")
    twice = [image_id for image_id, count in Counter(map(str, ids)).items() if count > 1]
    if twice:
        raise UserError(
            f"{path} names {len(twice)} images more than once, the first {twice[0]}.\n"
            "Name each once."
        )
    return ids


def _check_subset(path: str | Path, stated: Subset, subset: Subset) -> None:
    """Refuse a config with another subset: records would not describe the training images."""
    if stated != subset:
        raise UserError(
            f"{path} is of another subset than the config, which has\n  {subset.options()}\n"
            f"To train on the file's images, set\n  {stated.options()}"
        )


def _by_our_names(
    path: str | Path, ids: dict[str, list[int | str]], names: list[str]
) -> dict[str, list[int | str]]:
    """Return a manifest's ids by training dataset; a single one may have another name."""
    if len(ids) == len(names) == 1:
        return dict(zip(names, ids.values(), strict=True))
    there = {short: name for name, short in short_names(ids).items()}
    here = short_names(names)
    if set(there) == set(here.values()):
        return {name: ids[there[here[name]]] for name in names}
    if set(ids) != set(names):
        raise UserError(
            f"{path} is for {', '.join(ids)}, but DATASETS.TRAIN is {', '.join(names)}; they must "
            "be equal."
        )
    return ids


def _take_ids(path: str | Path, ids: list[int | str], name: str, dicts: Dicts) -> Dicts:
    known = {str(entry["image_id"]) for entry in dicts}
    unknown = [image_id for image_id in ids if str(image_id) not in known]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(ids)} ids are unknown in {name}, the first is "
            f"{unknown[0]!r} (a known id: {dicts[0]['image_id']!r})\n"
            "A split file is for one release of one data set."
        )
    wanted = set(map(str, ids))
    return [entry for entry in dicts if str(entry["image_id"]) in wanted]


def _take_listed(
    path: str | Path, content: Any, sets: Mapping[str, Dicts], fraction: float
) -> dict[str, Dicts]:
    ids = _checked_ids(path, content)
    everything = list(chain(*sets.values()))
    if len(_take_ids(path, ids, ", ".join(sets), everything)) > len(ids):
        raise UserError(
            f"{path} has image ids that occur in several of {', '.join(sets)}.\n"
            "Write a manifest instead."
        )
    share = f"{len(ids) / len(everything):.3g}: records state it, and schedules scale with it."
    _check_share(
        path, len(ids), sets, fraction, f"Set DATASETS.TRAIN_FRACTION {share}" if ids else _FORMS
    )
    wanted = set(map(str, ids))
    return {
        name: [entry for entry in dicts if str(entry["image_id"]) in wanted]
        for name, dicts in sets.items()
    }


def _check_share(
    path: str | Path, count: int, sets: Mapping[str, Dicts], fraction: float, advice: str
) -> None:
    """Refuse a number of images other than the fraction, of all or annotated images, within 2 %."""
    everything = list(chain(*sets.values()))
    annotated = sum(instances_of(entry) != [] for entry in everything)
    if not 0.98 * fraction * annotated - 1 <= count <= 1.02 * fraction * len(everything) + 1:
        raise UserError(
            f"{path} names {count} of {len(everything)} images, but DATASETS.TRAIN_FRACTION is "
            f"{fraction}.\n"
            f"{advice}"
        )


def _take_places(
    path: str | Path, content: dict[str, Any], sets: Mapping[str, Dicts], subset: Subset
) -> dict[str, Dicts]:
    percent, places = _find_entry(path, content, subset)
    dicts = _annotated(sets)
    if len(places) != _count(percent, dicts) or not all(
        0 <= place < len(dicts) for place in places
    ):
        raise UserError(
            f'{path}: its entry "{percent}" of seed {subset.seed} has {len(places)} indices up to '
            f"{max(places, default=0)}; expected {_count(percent, dicts)} indices below "
            f"{len(dicts)}, {percent} % of the images of {', '.join(sets)} with annotations.\n"
            "An index file is for one data set: COCO_supervision.txt is for coco_2017_train."
        )
    taken = {id(dicts[place]) for place in places}
    return {
        name: [entry for entry in of_set if id(entry) in taken] for name, of_set in sets.items()
    }


def _find_entry(path: str | Path, content: dict[str, Any], subset: Subset) -> tuple[str, list[int]]:
    """Return the entry's percentage, spelled as in the file ("10.0"), and its indices."""
    try:
        for percent, seeds in _distinct(path, content).items():
            if abs(float(percent) - 100 * subset.fraction) < 1e-6 and str(subset.seed) in seeds:
                places = _checked_ids(path, seeds[str(subset.seed)])
                if any(isinstance(place, str) for place in places):
                    raise TypeError("an index is text")
                return percent, [place for place in places if isinstance(place, int)]
        there = "\n".join(
            f"  {percent} %: seeds {', '.join(seeds)}" for percent, seeds in content.items()
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is JSON, but not a split file: {error}\n{_FORMS}") from error
    raise UserError(
        f"{path} has no entry for {100 * subset.fraction:g} % (100 times DATASETS.TRAIN_FRACTION) "
        f"and seed {subset.seed} (DATASETS.SUBSET_SEED). It has\n"
        f"{there}"
    )


def _distinct(path: str | Path, content: dict[str, Any]) -> dict[str, Any]:
    """Refuse an index file with two entries for one percentage, such as "10" and "10.0"."""
    counts = Counter(float(percent) for percent in content)
    twice = [percent for percent, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{path} has two entries for {twice[0]:g} %: merge them, or remove one.")
    return content


def _annotated(sets: Mapping[str, Dicts]) -> Dicts:
    """Return the images that Detectron2 trains on."""
    dicts = list(chain(*sets.values()))
    if not all("annotations" in entry for entry in dicts):
        raise UserError(
            f"Unbiased Teacher's index files are for images with boxes, which {', '.join(sets)} "
            "do not have.\n"
            "Use a manifest or a list of ids."
        )
    return filter_images_with_only_crowd_annotations(dicts)


def _count(percent: str, dicts: Dicts) -> int:
    """Return how many images Unbiased Teacher takes; it refuses an entry of another length."""
    return int(float(percent) / 100.0 * len(dicts))
