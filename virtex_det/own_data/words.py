"""A look at data as text for the terminal."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from virtex_det.escaping import visible
from virtex_det.own_data.look import Look
from virtex_det.own_data.survey import (
    LARGE,
    SMALL,
    Odd,
    Survey,
    images_without_objects,
    left_out,
    odd_objects,
)

_CLASSES = 40  # that the terminal shows; the page shows all


def in_words(look: Look) -> str:
    """Return what a look at data found, as text."""
    return "\n".join(_lines(look))


class Role(NamedTuple):
    """A data set with what it is for.

    Attributes:
        title: "train" or "val", with a number if several are.
        survey: of the data set.
        is_trained_on: whether it is for training.
    """

    title: str
    survey: Survey
    is_trained_on: bool


def roles(look: Look) -> list[Role]:
    """Return the data sets of a look, those to train on first."""
    found = []
    for word, surveys in (("train", look.train), ("val", look.val)):
        for number, each in enumerate(surveys, start=1):
            title = word + (f" {number}" if len(surveys) > 1 else "")
            found.append(Role(title, each, word == "train"))
    return found


def class_rows(look: Look) -> list[list[str | int]]:
    """Return each class with its number of objects per data set, the most frequent first."""
    counts = [each.counts for each in (*look.train, *look.val)]
    titles = dict.fromkeys(title for of_set in counts for title in of_set)
    rows = [[title, *(of_set.get(title, "-") for of_set in counts)] for title in titles]
    return sorted(rows, key=lambda row: -sum(each for each in row[1:] if isinstance(each, int)))


def size_rows(look: Look) -> list[list[str]]:
    """Return rows of facts per data set: images, objects, their sizes, and what is left out."""
    columns = [_facts(each) for each in (*look.train, *look.val)]
    titles = dict.fromkeys(title for column in columns for title in column)
    return [[title, *(column.get(title, "-") for column in columns)] for title in titles]


def odd_lines(survey: Survey) -> list[str]:
    """Return a sentence for each kind of odd box, with the first as an example."""
    return [_odd_line(survey, odd) for odd in odd_objects(survey)]


def left_out_lines(survey: Survey) -> list[str]:
    """Return what training leaves out of a data set, a sentence each."""
    lines = [f"{count} {reason}" for reason, count in left_out(survey).items()]
    if survey.missing:
        lines.append(f"{survey.missing} of {len(survey.dicts)} images have no file")
    masks = survey.objects.masks[~survey.objects.crowds] != ""
    if 0 < (lacking := int((~masks).sum())) < len(masks):
        lines.append(
            f"all masks, as {lacking} of {len(masks)} objects have none: complete them, or train "
            "on boxes alone (MODEL.MASK_ON False)"
        )
    if survey.is_labelled and (empty := images_without_objects(survey)):
        lines.append(
            f"{empty} of {len(survey.dicts)} images have no object: left out unless "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS is False, which makes them negatives"
        )
    return lines


def reader_notes(survey: Survey) -> list[str]:
    """Return the warnings of the reader, without the name of the data set before them."""
    return [note.removeprefix(f"data set {survey.name}: ") for note in survey.notes]


def shared_lines(look: Look) -> list[str]:
    """Return how many images two data sets share, a sentence per pair of data sets."""
    number = {each.name: len(each.dicts) for each in (*look.train, *look.val)}
    lines = []
    for names, files in look.shared:
        own, earlier = min(files.items())
        same = "" if own == earlier else f" = {earlier}"
        lines.append(
            f"{len(files)} of {number[names[1]]} images of {names[1]} are in {names[0]}, too, "
            f"e.g. {own}{same}"
        )
    return lines


def _lines(look: Look) -> Iterator[str]:
    titles = [role.title for role in roles(look)]
    for role in roles(look):
        yield f"{role.title}: {role.survey.name}"
    yield ""
    yield _table(size_rows(look), ["", *titles])
    rows = class_rows(look)
    if rows:
        yield ""
        yield _table(rows[:_CLASSES], ["objects of class", *titles])
        if len(rows) > _CLASSES:
            yield f"and {len(rows) - _CLASSES} more classes"
    for title, each, is_trained_on in roles(look):
        if is_trained_on:
            yield from _section(f"{title}: training leaves out", left_out_lines(each))
        yield from _section(f"{title}: worth a look", odd_lines(each))
        yield from _section(f"{title}: notes of the reader", reader_notes(each))
    yield from _section("shared images (equal files)", shared_lines(look))
    yield from _section("notes of the checks", look.notes)
    yield from _section("a training would not begin", look.problems)
    if not look.problems:
        yield "\nThe checks before a training pass."


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"\n{title}:"
        for line in lines:
            yield "  - " + line.replace("\n", "\n    ")


def _facts(survey: Survey) -> dict[str, str]:
    objects, sizes = survey.objects, survey.sizes[~np.isnan(survey.sizes).any(axis=1)]
    facts = {"images": f"{len(survey.dicts)}"}
    if len(sizes):
        middle = np.median(sizes, axis=0)
        area = sizes.prod(axis=1)
        smallest, largest = sizes[area.argmin()], sizes[area.argmax()]
        facts["image size, median"] = f"{middle[1]:.0f} x {middle[0]:.0f}"
        facts["smallest and largest image"] = (
            f"{smallest[1]:.0f} x {smallest[0]:.0f}, {largest[1]:.0f} x {largest[0]:.0f}"
        )
    if not survey.is_labelled:
        return facts
    number = int((~objects.crowds).sum())
    facts["classes"] = f"{len(survey.classes)}"
    facts["objects"] = f"{number}"
    facts["objects with a mask"] = f"{int((objects.masks[~objects.crowds] != '').sum())}"
    facts["crowds"] = f"{int(objects.crowds.sum())}"
    if len(sides := objects.sides):
        low, middle, high = np.percentile(sides, [5, 50, 95])
        shares = np.histogram(sides, [0, SMALL, LARGE, np.inf])[0] / len(sides)
        facts["object size (root of the area), 5 %, median, 95 %"] = (
            f"{low:.0f}, {middle:.0f}, {high:.0f} px"
        )
        facts[f"small (below {SMALL} px), medium, large (from {LARGE} px)"] = ", ".join(
            f"{share:.0%}" for share in shares
        )
    facts["images without objects"] = f"{images_without_objects(survey)}"
    return facts


def _odd_line(survey: Survey, odd: Odd) -> str:
    place = int(odd.places[0])
    objects = survey.objects
    file = survey.dicts[objects.images[place]].get("file_name")
    box = ", ".join(f"{value:.1f}" for value in objects.boxes[place])
    return (
        f"boxes {odd.what}: {len(odd.places)} of {len(objects.boxes)}, e.g. "
        f"{survey.title(objects.classes[place])} at {box} in {file}"
    )


def _table(rows: Sequence[Sequence[str | int]], headers: Sequence[str]) -> str:
    shown = [[visible(str(cell), "") for cell in row] for row in rows]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(shown, headers, disable_numparse=True, colalign=align)
