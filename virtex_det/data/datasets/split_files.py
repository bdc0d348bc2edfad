"""Files that name the images of a part of a data set: our manifests, lists of ids, Unbiased Teacher's index files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data.build import filter_images_with_only_crowd_annotations

from virtex_det.data.datasets.ids import is_name
from virtex_det.data.datasets.subsets import instances_of, manifest_sha256, rank_images
from virtex_det.errors import UserError
from virtex_det.text_files import parse_json, read_text, split_lines
from virtex_det.utils import write_atomically

Dicts = list[dict[str, Any]]

_FORMS = (
    "Expected a manifest (tools/subset.py writes them), a list of image ids, one a line, or an index file in Unbiased "
    'Teacher\'s form, {"10.0": {"1": [4464, ...]}}.'
)
_MANIFEST_KEYS = {"fraction", "seed", "stratified", "sha256", "ids"}


class Part(NamedTuple):
    """A part of a data set by the DATASETS keys of the same meaning."""

    fraction: float = 1.0
    seed: int = 0
    stratified: bool = False

    def options(self) -> str:
        """Return the part as config keys and values."""
        return (
            f"DATASETS.TRAIN_FRACTION {self.fraction} DATASETS.SUBSET_SEED {self.seed} "
            f"DATASETS.SUBSET_STRATIFIED {self.stratified}"
        )


class Manifest(NamedTuple):
    """Which images a part of one or several data sets holds.

    Attributes:
        ids: by name of the data set the image ids, sorted.
        part: what it is called.
    """

    ids: dict[str, list[int | str]]
    part: Part

    @property
    def sha256(self) -> str:
        """The hash of the ids, whatever the names of the data sets."""
        return manifest_sha256(*self.ids.values())

    def write(self, path: str | Path) -> None:
        """Write the manifest, whole or not at all."""
        content = {**self.part._asdict(), "sha256": self.sha256, "ids": self.ids}
        write_atomically(path, json.dumps(content) + "\n")


def make_manifest(chosen: Mapping[str, Dicts], part: Part) -> Manifest:
    """Return the manifest of the images chosen of each data set."""
    return Manifest({name: _sorted(entry["image_id"] for entry in dicts) for name, dicts in chosen.items()}, part)


def part_of(path: str | Path) -> Part | None:
    """Return the part that a manifest says it is; None where the file is of another form.

    Raises:
        UserError: the file cannot be read.
    """
    content = _read(Path(path))
    return _read_manifest(path, content)[1] if _is_manifest(content) else None


def take_split(path: str | Path, sets: Mapping[str, Dicts], part: Part) -> dict[str, Dicts]:
    """Take the images that a split file names.

    An index file in Unbiased Teacher's form holds places in Detectron2's list of the training images, from which those
    without annotations are already filtered; its entry is that of ``100 * part.fraction`` per cent and ``part.seed``.

    Args:
        path: the file; its form is told by its content.
        sets: all images of each data set to train on.
        part: what the config calls the part, which has to be true of the file.

    Returns:
        The images taken of each data set, in their original order.

    Raises:
        UserError: the file cannot be read, names images that are not there, names one twice, or is of another part.
    """
    content = _read(Path(path))
    if _is_manifest(content):
        ids, stated = _read_manifest(path, content)
        _check_part(path, stated, part)
        ids = _by_our_names(path, ids, list(sets))
        remade = "It is of another data set or was edited: make it again with tools/subset.py."
        _check_share(path, sum(map(len, ids.values())), sets, part.fraction, remade)
        return {name: _take_ids(path, ids[name], name, dicts) for name, dicts in sets.items()}
    if part.stratified:
        raise UserError(f"{path} names the images, not their categories: set DATASETS.SUBSET_STRATIFIED False.")
    if isinstance(content, dict):
        return _take_places(path, content, sets, part)
    return _take_listed(path, content, sets, part.fraction)


def write_ids(path: str | Path, manifest: Manifest) -> None:
    """Write the ids of a manifest one a line, with none of the rest.

    Raises:
        UserError: several data sets have an id in common.
    """
    ids = list(map(str, chain(*manifest.ids.values())))
    if len(set(ids)) < len(ids):
        raise UserError(
            f"{', '.join(manifest.ids)} have image ids in common, which a list cannot tell apart: use a manifest."
        )
    write_atomically(path, "".join(f"{image_id}\n" for image_id in ids))


def write_index_file(path: str | Path, sets: Mapping[str, Dicts], parts: Iterable[Part]) -> None:
    """Write parts in Unbiased Teacher's form, which other projects read as well.

    It does not count images without annotations, and rounds down, so a part is here the first images of our ranking
    of those with annotations: mostly the images that the other forms name, and not quite as many.

    Args:
        path: file to write.
        sets: all images of each data set.
        parts: what to write, an entry each.
    """
    dicts = _annotated(sets)
    entries: dict[str, dict[str, list[int]]] = {}
    for part in parts:
        percent = str(round(100 * part.fraction, 9))
        ranked = rank_images(dicts, part.seed, part.stratified)
        entries.setdefault(percent, {})[str(part.seed)] = sorted(ranked[: _count(percent, dicts)])
    write_atomically(path, json.dumps(entries) + "\n")


def _sorted(ids: Iterable[int | str]) -> list[int | str]:
    return sorted(ids, key=lambda image_id: (isinstance(image_id, str), image_id))


def _read(path: Path) -> Any:
    """Return the file's JSON, or else its lines."""
    if not path.exists():
        raise UserError(f"there is no split file {path} (DATASETS.SUBSET_FILE)")
    try:
        text = read_text(path).strip()
        if text.startswith(("{", "[")):
            return parse_json(text, str(path))
        return [line.strip() for line in split_lines(text) if line.strip()]
    except UserError as error:
        raise UserError(f"{path} cannot be read as a split file: {error}\n{_FORMS}") from error


def _is_manifest(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() >= _MANIFEST_KEYS


def _read_manifest(path: str | Path, content: dict[str, Any]) -> tuple[dict[str, list[int | str]], Part]:
    try:
        ids = {str(name): _checked_ids(path, ids) for name, ids in content["ids"].items()}
        part = Part(content["fraction"], content["seed"], content["stratified"])
        kinds = (type(part.fraction) in (int, float), type(part.seed) is int, type(part.stratified) is bool)
        if not all(kinds):
            raise ValueError(f"fraction, seed and stratified are {part.fraction!r}, {part.seed!r}, {part.stratified!r}")
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not of the form of a manifest: {error}\n{_FORMS}") from error
    if manifest_sha256(*ids.values()) != content["sha256"]:
        raise UserError(
            f"{path}: its sha256 {content['sha256']} does not fit its ids, whose own is "
            f"{manifest_sha256(*ids.values())}: it was edited by hand or damaged.\nMake it again with tools/subset.py."
        )
    return ids, part


def _checked_ids(path: str | Path, ids: Any) -> list[int | str]:
    if not isinstance(ids, list) or not all(type(image_id) is int or is_name(image_id) for image_id in ids):
        raise UserError(f"{path} holds no list of image ids\n{_FORMS}")
    twice = [image_id for image_id, count in Counter(map(str, ids)).items() if count > 1]
    if twice:
        raise UserError(f"{path} names {len(twice)} images more than once, the first {twice[0]}\nName each once.")
    return ids


def _check_part(path: str | Path, stated: Part, part: Part) -> None:
    """Refuse a config that calls the part otherwise: records would tell of another one than was trained on."""
    if stated != part:
        raise UserError(
            f"{path} and the config differ about the part; the config says\n  {part.options()}\n"
            f"To train on what the file names, set\n  {stated.options()}"
        )


def _by_our_names(path: str | Path, ids: dict[str, list[int | str]], names: list[str]) -> dict[str, list[int | str]]:
    """Return a manifest's ids by the names to train on; of a single data set, the name does not matter."""
    if len(ids) == len(names) == 1:
        return dict(zip(names, ids.values(), strict=True))
    if set(ids) != set(names):
        raise UserError(f"{path} is of {', '.join(ids)}, and DATASETS.TRAIN is {', '.join(names)}; they must be alike.")
    return ids


def _take_ids(path: str | Path, ids: list[int | str], name: str, dicts: Dicts) -> Dicts:
    known = {str(entry["image_id"]) for entry in dicts}
    unknown = [image_id for image_id in ids if str(image_id) not in known]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(ids)} ids are not those of an image of {name}, the first {unknown[0]!r} "
            f"(an image there: {dicts[0]['image_id']!r})\nA split file goes with one release of one data set."
        )
    wanted = set(map(str, ids))
    return [entry for entry in dicts if str(entry["image_id"]) in wanted]


def _take_listed(path: str | Path, content: Any, sets: Mapping[str, Dicts], fraction: float) -> dict[str, Dicts]:
    ids = _checked_ids(path, content)
    everything = list(chain(*sets.values()))
    if len(_take_ids(path, ids, ", ".join(sets), everything)) > len(ids):
        raise UserError(f"{path} names images that several of {', '.join(sets)} have.\nWrite a manifest instead.")
    share = f"{len(ids) / len(everything):.3g}: it is what records tell, and what schedules scale by."
    _check_share(path, len(ids), sets, fraction, f"Set DATASETS.TRAIN_FRACTION {share}" if ids else _FORMS)
    wanted = set(map(str, ids))
    return {name: [entry for entry in dicts if str(entry["image_id"]) in wanted] for name, dicts in sets.items()}


def _check_share(path: str | Path, count: int, sets: Mapping[str, Dicts], fraction: float, advice: str) -> None:
    """Refuse a number of images that is not the fraction of all, or of those with annotations, to within 2 %."""
    everything = list(chain(*sets.values()))
    annotated = sum(instances_of(entry) != [] for entry in everything)
    if not 0.98 * fraction * annotated - 1 <= count <= 1.02 * fraction * len(everything) + 1:
        raise UserError(
            f"{path} names {count} of {len(everything)} images, and DATASETS.TRAIN_FRACTION is {fraction}.\n{advice}"
        )


def _take_places(path: str | Path, content: dict[str, Any], sets: Mapping[str, Dicts], part: Part) -> dict[str, Dicts]:
    percent, places = _find_entry(path, content, part)
    dicts = _annotated(sets)
    if len(places) != _count(percent, dicts) or not all(0 <= place < len(dicts) for place in places):
        raise UserError(
            f'{path}: its entry "{percent}" of seed {part.seed} has {len(places)} indices up to '
            f"{max(places, default=0)}; {percent} % of the {len(dicts)} images with annotations of {', '.join(sets)} "
            f"are {_count(percent, dicts)}.\nAn index file goes with one data set: COCO_supervision.txt with "
            "coco_2017_train."
        )
    taken = {id(dicts[place]) for place in places}
    return {name: [entry for entry in of_set if id(entry) in taken] for name, of_set in sets.items()}


def _find_entry(path: str | Path, content: dict[str, Any], part: Part) -> tuple[str, list[int]]:
    """Return the entry's percentage, written as the file has it ("10.0"), and its places."""
    try:
        for percent, seeds in _distinct(path, content).items():
            if abs(float(percent) - 100 * part.fraction) < 1e-6 and str(part.seed) in seeds:
                places = _checked_ids(path, seeds[str(part.seed)])
                if any(isinstance(place, str) for place in places):
                    raise TypeError("an index is text")
                return percent, [place for place in places if isinstance(place, int)]
        there = "\n".join(f"  {percent} %: seeds {', '.join(seeds)}" for percent, seeds in content.items())
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is JSON, but no split file: {error}\n{_FORMS}") from error
    raise UserError(
        f"{path} has no entry of {100 * part.fraction:g} % (100 times DATASETS.TRAIN_FRACTION) and seed {part.seed} "
        f"(DATASETS.SUBSET_SEED). It has\n{there}"
    )


def _distinct(path: str | Path, content: dict[str, Any]) -> dict[str, Any]:
    """Refuse an index file with two entries for one percentage, such as "10" and "10.0"."""
    counts = Counter(float(percent) for percent in content)
    twice = [percent for percent, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{path} has two entries of {twice[0]:g} %: put them together, or remove one.")
    return content


def _annotated(sets: Mapping[str, Dicts]) -> Dicts:
    """Return the list that Detectron2 trains on."""
    dicts = list(chain(*sets.values()))
    if not all("annotations" in entry for entry in dicts):
        raise UserError(
            f"Unbiased Teacher's index files are of images with boxes, which {', '.join(sets)} have not.\n"
            "Use a manifest or a list of ids."
        )
    return filter_images_with_only_crowd_annotations(dicts)


def _count(percent: str, dicts: Dicts) -> int:
    """Return how many images Unbiased Teacher takes; it refuses an entry of another length."""
    return int(float(percent) / 100.0 * len(dicts))
