"""The classes that DATASETS.CLASSES makes of those of a data set: renamed, joined, left out."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from virtex_det.data.datasets.found import Found, some
from virtex_det.errors import UserError

# Entries of DATASETS.CLASSES: a name, or a new name and the names that become it.
Rules = tuple[str | tuple[str, ...], ...]
OTHERS = "*"  # all names that no entry has
_SIMILAR = 0.8  # of a name to one of the data, above which it is taken for a slip


def as_rules(value: Sequence[Any]) -> Rules:
    """Return the value of DATASETS.CLASSES as tuples, which can be compared.

    Raises:
        UserError: a name occurs twice.
    """
    rules = tuple(entry if isinstance(entry, str) else tuple(entry) for entry in value)
    titles = Counter(entry if isinstance(entry, str) else entry[0] for entry in rules)
    sources = Counter(name for entry in rules for name in _sources(entry))
    repeated = [name for name, count in titles.items() if count > 1 and name]
    if repeated:
        raise UserError(
            f"DATASETS.CLASSES has two entries for the class {repeated[0]!r}.\n"
            'To join classes, write them into one entry: ["vehicle", "car", "truck"].'
        )
    taken = [name for name, count in sources.items() if count > 1 and name]
    if taken:
        raise UserError(
            f"DATASETS.CLASSES takes the class {taken[0]!r} of the data twice.\n"
            "Leave it in one entry only."
        )
    return rules


def with_classes(found: Found, rules: Rules, source: str) -> Found:
    """Return a data set with the classes of DATASETS.CLASSES.

    Args:
        found: the data set as it is; stays unchanged.
        rules: of ``as_rules``; empty for the classes of the data.
        source: the name of the data set in messages.

    Returns:
        Categories in the order of the entries, numbered from 0 if those of the data are, else from
        1, and their objects. Notes say what was left out.

    Raises:
        UserError: no class remains, or a name looks like a slip.
    """
    if not (rules and found.content["categories"]):
        return found
    categories = sorted(found.content["categories"], key=lambda category: category["id"])
    names = [category["name"] for category in categories]
    target = _targets(rules, names)
    titles = _titles(rules, names)
    _check(rules, names, titles, source)
    first = 0 if categories and categories[0]["id"] == 0 else 1
    numbers = {title: number for number, title in enumerate(titles, start=first)}
    new_id = {
        category["id"]: numbers[target[category["name"]]]
        for category in categories
        if target.get(category["name"])
    }
    objects = [
        {**entry, "category_id": new_id[entry["category_id"]]}
        for entry in found.content["annotations"]
        if entry["category_id"] in new_id
    ]
    content = {
        **found.content,
        "annotations": objects,
        "categories": [
            {"id": number, "name": title, **_frequency(title, categories, target, source)}
            for title, number in numbers.items()
        ],
    }
    if any("neg_category_ids" in image for image in content["images"]):
        content["images"] = [_with_lists(image, new_id) for image in content["images"]]
    return found._replace(content=content, notes=(*found.notes, *_notes(found, rules, new_id)))


def _sources(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry[1:]


def _wanted(rules: Rules) -> list[str]:
    """Return the names of the data that the entries have."""
    return [name for entry in rules if entry != OTHERS for name in _sources(entry)]


def _titles(rules: Rules, names: Sequence[str]) -> list[str]:
    """Return the names of the new classes, in order."""
    used = _wanted(rules)
    titles: list[str] = []
    for entry in rules:
        if entry == OTHERS:
            titles += [name for name in names if name not in used]
        else:
            titles.append(entry if isinstance(entry, str) else entry[0])
    return [title for title in dict.fromkeys(titles) if title]


def _targets(rules: Rules, names: Sequence[str]) -> dict[str, str]:
    """Return the new name of each class of the data; "" for one that is left out."""
    has_others = OTHERS in rules
    targets = {name: name if has_others else "" for name in names}
    for entry in rules:
        title = entry if isinstance(entry, str) else entry[0]
        targets |= dict.fromkeys(_sources(entry), title) if entry != OTHERS else {}
    return targets


def _check(rules: Rules, names: Sequence[str], titles: Sequence[str], source: str) -> None:
    known, wanted = set(names), _wanted(rules)
    for name in wanted:
        near = difflib.get_close_matches(name, known - set(wanted), n=1, cutoff=_SIMILAR)
        if name not in known and near:
            raise UserError(
                f"DATASETS.CLASSES has {name!r}, which {source} does not have. Did you mean "
                f"{near[0]!r}?"
            )
    if not titles or not (known.intersection(wanted) or OTHERS in rules):
        raise UserError(
            f"DATASETS.CLASSES leaves no class of {source}, which has {some(names, 10)}.\n"
            "Name classes of the data."
        )


def _frequency(
    title: str, categories: Sequence[Mapping[str, Any]], target: Mapping[str, str], source: str
) -> dict[str, Any]:
    """Return what LVIS's metrics need of a category, empty for other forms."""
    if not any("frequency" in category for category in categories):
        return {}
    members = [category for category in categories if target[category["name"]] == title]
    if len(members) != 1:
        raise UserError(
            f"DATASETS.CLASSES makes {title!r} of {len(members)} classes of {source}, but LVIS's "
            "metrics need the frequency of each class, which joined classes do not have.\n"
            "Rename or leave out LVIS's classes only, or name the file as coco:FILE.json:IMAGES."
        )
    return {key: members[0][key] for key in ("frequency", "image_count") if key in members[0]}


def _with_lists(image: Mapping[str, Any], new_id: Mapping[Any, int]) -> dict[str, Any]:
    lists = {
        key: [new_id[number] for number in image[key] if number in new_id]
        for key in ("neg_category_ids", "not_exhaustive_category_ids")
        if key in image
    }
    return {**image, **lists}


def _notes(found: Found, rules: Rules, new_id: Mapping[Any, int]) -> list[str]:
    names = {category["id"]: category["name"] for category in found.content["categories"]}
    dropped = [name for number, name in names.items() if number not in new_id]
    lacking = [name for name in _wanted(rules) if name not in names.values()]
    notes = []
    if dropped:
        count = sum(entry["category_id"] not in new_id for entry in found.content["annotations"])
        notes.append(
            f"DATASETS.CLASSES leaves out {len(dropped)} of {len(names)} classes, with {count} "
            f"objects: {some(dropped, 10)}"
        )
    if lacking:
        notes.append(f"it has no class {some(lacking, 10)}, which DATASETS.CLASSES names")
    return notes
