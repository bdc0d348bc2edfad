"""What captions talk about, in numbers, so that two sets of captions can be compared."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from virtex_det.data.concepts import PARTS_OF_SPEECH, most_frequent_parts
from virtex_det.data.tokenizer import normalize_caption
from virtex_det.escaping import in_markdown

# Words of the statistics: the most frequent nouns, adjectives and verbs together.
TOP_WORDS = 200

_COLORS = """
    black blue brown gold golden gray green grey orange pink purple red silver white yellow
"""
_SIZES = "big giant huge large little long medium short small tall tiny"
_COUNTS = """
    two three four five six seven eight nine ten several many multiple some couple pair group
    bunch herd
"""
# Where something is; "of" and "with" say nothing about places.
_PLACES = """
    above across against along around at behind below beneath beside between by in inside near
    next on outside over through under underneath
"""
# Nouns that name nothing that a detector could find.
_LAYOUT = """
    area back background bottom bunch center close corner couple edge end front group image left lot
    middle number pair part parts photo photograph picture piece pieces pile right set side top
    variety view
"""
_SIDES = "above behind below beneath beside front left near next over right under"
_WORD = re.compile(r"[^\W\d_]+")


class CaptionStatistics(NamedTuple):
    """Statistics of the captions of some images; shares are from 0 to 1."""

    images: int
    captions: int
    words: float  # mean number in a caption
    nouns: float  # share of the occurrences of the TOP_WORDS nouns, adjectives and verbs
    adjectives: float
    verbs: float
    layout: float  # share of the nouns' occurrences that name a place, a group or the picture
    colors: float  # share of the captions that name one
    sizes: float
    counts: float
    places: float  # share of the captions with a preposition of place, such as "on" or "above"
    sides: float  # share of the captions that say on which side of something, such as "above"
    agreement: float  # share of a caption's nouns that another caption of its image has, a mean


# What each row of the table says.
_TITLES = {
    "images": "images",
    "captions": "captions",
    "words": "words in a caption",
    "nouns": "nouns among concept words",
    "adjectives": "adjectives among concept words",
    "verbs": "verbs among concept words",
    "layout": "nouns for places, groups or the picture (top, side, group ...)",
    "colors": "captions that name a colour",
    "sizes": "captions that name a size",
    "counts": "captions that name a number or a group",
    "places": "captions with a preposition of place (on, in, above ...)",
    "sides": "captions with a side or a neighbour (left, above, next to ...)",
    "agreement": "nouns of a caption that a second caption of the image has",
}
_FORMS = {"images": ",", "captions": ",", "words": ".1f"}  # of numbers that are no shares


def caption_statistics(captions: Sequence[Sequence[str]]) -> CaptionStatistics:
    """Count what captions talk about.

    A word has its most frequent part of speech, as in ``build_concepts``. Concept words are the
    TOP_WORDS most frequent nouns, adjectives and verbs together.

    Args:
        captions: the captions of each image, in English.

    Raises:
        UserError: the part-of-speech tagger is not installed.

    Example:
        >>> found = caption_statistics([["a red star above a ring", "a star and a ring"]])
        >>> found.words, found.colors, found.agreement
        (5.5, 0.5, 1.0)
    """
    texts = [caption for of_image in captions for caption in of_image]
    by_image = [list(map(_words, of_image)) for of_image in captions]
    words = [of_caption for of_image in by_image for of_caption in of_image]
    parts = {word: part for word, (part, _) in most_frequent_parts(texts).items()}
    shares = _shares_of_parts(Counter(word for of_caption in words for word in of_caption), parts)
    return CaptionStatistics(
        images=len(captions),
        captions=len(texts),
        words=sum(map(len, words)) / max(len(texts), 1),
        nouns=shares["noun"],
        adjectives=shares["adjective"],
        verbs=shares["verb"],
        layout=shares["layout"],
        colors=_naming(_COLORS, words),
        sizes=_naming(_SIZES, words),
        counts=_naming(_COUNTS, words),
        places=_naming(_PLACES, words),
        sides=_naming(_SIDES, words),
        agreement=_agreement(by_image, parts),
    )


def statistics_table(statistics: Mapping[str, CaptionStatistics]) -> str:
    """Return a table in Markdown with a column for each set of captions, by its name."""
    rows = [["", *map(in_markdown, statistics)], ["---"] * (1 + len(statistics))]
    for field, title in _TITLES.items():
        values = [getattr(found, field) for found in statistics.values()]
        rows.append([title, *(_shown(value, _FORMS.get(field)) for value in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(value: float, form: str | None) -> str:
    return format(value, form) if form else f"{100 * value:.0f} %"


def _words(caption: str) -> list[str]:
    return _WORD.findall(normalize_caption(caption))


def _shares_of_parts(counts: Counter[str], parts: Mapping[str, str]) -> dict[str, float]:
    """Return the share of each part of speech in the occurrences of the most frequent words.

    Under "layout" is the share of the nouns that are in _LAYOUT.
    """
    concepts = [
        (word, count) for word, count in counts.items() if parts.get(word) in PARTS_OF_SPEECH
    ]
    frequent = sorted(concepts, key=lambda item: (-item[1], item[0]))[:TOP_WORDS]
    total = sum(count for _, count in frequent)
    shares = {}
    for part in PARTS_OF_SPEECH:
        found = sum(count for word, count in frequent if parts[word] == part)
        shares[part] = found / max(total, 1)
    nouns = [(word, count) for word, count in frequent if parts[word] == "noun"]
    layout = sum(count for word, count in nouns if word in _LAYOUT.split())
    return {**shares, "layout": layout / max(sum(count for _, count in nouns), 1)}


def _naming(wanted: str, words: Sequence[Sequence[str]]) -> float:
    """Return the share of the texts with one of the wanted words, which are in one string."""
    known = {*wanted.split()}
    return sum(not known.isdisjoint(text) for text in words) / max(len(words), 1)


def _agreement(by_image: Sequence[Sequence[Sequence[str]]], parts: Mapping[str, str]) -> float:
    """Return the share of a caption's nouns that another has, a mean over pairs of captions.

    Args:
        by_image: the words of each caption of each image.
        parts: of speech, by word.
    """
    shares = []
    for of_image in by_image:
        nouns = [{word for word in words if parts.get(word) == "noun"} for words in of_image]
        for position, one in enumerate(nouns):
            others = nouns[:position] + nouns[position + 1 :]
            shares += [len(one & other) / len(one) for other in others if one]
    return sum(shares) / max(len(shares), 1)
