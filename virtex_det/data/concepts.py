"""Concept sets (ICMLM): the most frequent nouns, adjectives and verbs of captions."""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from virtex_det.data.datasets.ids import is_name
from virtex_det.data.tokenizer import normalize_caption
from virtex_det.data.tokenizers import Tokenizer
from virtex_det.errors import UserError
from virtex_det.text_files import read_json
from virtex_det.utils import write_atomically

logger = logging.getLogger(__name__)

# HanTa's tags are those of the British National Corpus (C5). "Be", "do" and "have" do not count as
# verbs: most are auxiliaries.
_TAG_PREFIXES = {"NN": "noun", "NP0": "noun", "AJ": "adjective", "VV": "verb"}
PARTS_OF_SPEECH = ("noun", "adjective", "verb")

_SCHEMA = 1
# They make up a fifth or more of the words in English captions, at most a twentieth in others.
_ENGLISH = frozenset(("a", "an", "the", "and", "with", "of", "on", "at"))
_ENGLISH_SHARE = 0.08
_WORDS_THAT_TELL = 100
_WORD_OR_MARK = re.compile(r"'?\w+|[^\w\s]")
_HOW_TO_BUILD = (
    "Build one with: python tools/build_concepts.py --dataset NAME --tokenizer PATH --output FILE\n"
    "and set INPUT.CAPTION.CONCEPTS to FILE."
)


@dataclass(frozen=True)
class Concept:
    """A word for something visible."""

    word: str  # as in captions, lower case, without accents
    part_of_speech: str
    count: int  # occurrences in the captions as this part of speech
    token_id: int  # its only token


@dataclass(frozen=True)
class ConceptSet:
    """The concepts of captions, most frequent first, and the settings they were chosen with."""

    tokenizer_sha256: str
    parts_of_speech: tuple[str, ...]
    concepts: tuple[Concept, ...]

    def write(self, path: str | Path) -> None:
        """Write a JSON file, atomically."""
        write_atomically(path, json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> "ConceptSet":
        """Read a file of ``write``.

        Raises:
            UserError: the file is missing, truncated or of another kind.
        """
        if not Path(path).is_file():
            raise UserError(f"Cannot read the concept set '{path}': No such file.\n{_HOW_TO_BUILD}")
        try:
            return _checked(read_json(path, "a concept set"))
        except (UserError, ValueError) as error:
            raise UserError(
                f"{path} is not a complete concept set: {error}.\n{_HOW_TO_BUILD}"
            ) from error

    def require_tokenizer(self, sha256: str) -> None:
        """Refuse a tokenizer other than the concepts' own: their token ids would be other words.

        Raises:
            UserError: the tokenizer has another hash.
        """
        if sha256 != self.tokenizer_sha256:
            raise UserError(
                "The concept set INPUT.CAPTION.CONCEPTS was built with another tokenizer than "
                f"INPUT.CAPTION.TOKENIZER: its sha256 is {self.tokenizer_sha256[:12]}..., this "
                f"one's {sha256[:12]}...\n"
                f"Build it again with this tokenizer. {_HOW_TO_BUILD}"
            )

    def require_pieces(self, tokenizer: Tokenizer) -> None:
        """Refuse an edited set with words that would never match a caption.

        Raises:
            UserError: a word is not the single token that the set says, or occurs twice.
        """
        ids = [concept.token_id for concept in self.concepts]
        twice = {token_id for token_id, times in Counter(ids).items() if times > 1}
        for word, token_id in ((concept.word, concept.token_id) for concept in self.concepts):
            if (
                token_id in twice
                or tokenizer.encode(word) != [token_id]
                or normalize_caption(word) != word
            ):
                raise UserError(
                    f"The concept {word!r} in INPUT.CAPTION.CONCEPTS has token_id "
                    f"{token_id}{', as another concept has' if token_id in twice else ''}; the "
                    f"tokenizer encodes it as {tokenizer.encode(word)}.\n"
                    "A concept is a single token, in lower case, without accents, and unique: "
                    "correct its entry or remove it."
                )


def build_concepts(
    captions: Iterable[str],
    tokenizer: Tokenizer,
    parts_of_speech: Sequence[str] = ("noun",),
    size: int = 5000,
    words: Container[str] | None = None,
) -> ConceptSet:
    """Choose the most frequent words of some parts of speech in English captions (ICMLM).

    Where we do not know the paper's choice, we chose: a word has its most frequent part of speech,
    word forms are counted, not lemmas, and only words that are a single token are taken, so that
    one [MASK] hides a whole word. Ties are in alphabetical order.

    Args:
        captions: the captions.
        tokenizer: the tokenizer of the run.
        parts_of_speech: some of PARTS_OF_SPEECH.
        size: the largest number of concepts.
        words: take only these, such as those of high ``caption_agreement``; None: any.

    Raises:
        UserError: HanTa is not installed, a part of speech has no word, or the size is below 1.
    """
    if size < 1:
        raise UserError(f"A concept set cannot have {size} words; --size must be 1 or more.")
    found = []
    for word, (part, count) in most_frequent_parts(captions).items():
        # Letters of a mathematical font are lower-cased only when normalised again.
        if part not in parts_of_speech or word != normalize_caption(word):
            continue
        if words is not None and word not in words:
            continue
        tokens = tokenizer.encode(word)
        if len(tokens) == 1 and tokens[0] != tokenizer.unk_id:
            found.append(Concept(word, part, count, tokens[0]))
    concepts = sorted(found, key=lambda concept: (-concept.count, concept.word))[:size]
    found_parts = {concept.part_of_speech for concept in concepts}
    lacking = [part for part in parts_of_speech if part not in found_parts]
    if "noun" in lacking or not concepts:
        raise UserError(
            f"The captions have no {' or '.join(lacking)} that is a single token.\n"
            "Check that the datasets have captions, that they are in English, and that the "
            "vocabulary was built from them."
        )
    return ConceptSet(tokenizer.sha256, tuple(parts_of_speech), tuple(concepts))


def caption_agreement(captions: Iterable[Sequence[str]]) -> dict[str, float]:
    """Return how well two captions of an image agree on each word, as Cohen's kappa.

    1: whenever one has the word, the other has it too; 0: no more often than by chance. What an
    image shows, its captions agree on (COCO: "pizza" 0.84, "dog" 0.82, "person" 0.30); words for
    the layout or the image itself they do not ("picture" 0.21, "front" 0.10, "area" 0.08). Guessing
    such a word from the image teaches a backbone little.

    Args:
        captions: the captions of each image.

    Returns:
        By word; empty if no image has two captions.

    Source:
        Cohen, "A coefficient of agreement for nominal scales", 1960. Its use for concepts is ours.

    Example:
        >>> caption_agreement([["a dog in front", "a dog"], ["a cat", "the cat in front"]])["dog"]
        1.0
    """
    pairs = 0  # ordered pairs of an image's captions
    first: Counter[str] = Counter()  # pairs whose first caption has the word
    both: Counter[str] = Counter()  # pairs of which both have it
    for of_image in captions:
        others = len(of_image) - 1
        pairs += len(of_image) * others
        counts = Counter(word for caption in of_image for word in _distinct_words(caption))
        for word, count in counts.items():
            first[word] += count * others
            both[word] += count * (count - 1)
    agreement = {}
    for word, count in first.items():
        share = count / pairs if pairs else 1.0
        if share < 1:
            agreement[word] = (both[word] / pairs - share**2) / (share - share**2)
    return agreement


def _distinct_words(caption: str) -> set[str]:
    return {word for word in _WORD_OR_MARK.findall(normalize_caption(caption)) if word.isalpha()}


def most_frequent_parts(captions: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return the most frequent part of speech of each word, and how often the word has it.

    Args:
        captions: English captions.

    Returns:
        By word: one of PARTS_OF_SPEECH or "other", and the count.

    Raises:
        UserError: HanTa is not installed.
    """
    counts: dict[str, Counter[str]] = {}
    tag = _tagger()
    distinct = Counter(normalize_caption(caption) for caption in captions)
    _warn_of_another_language(distinct)
    for caption, times in tqdm(
        distinct.items(), "Tagging captions", unit=" captions", mininterval=1
    ):
        words = _WORD_OR_MARK.findall(caption)
        for word, part in zip(words, tag(words), strict=True):
            if word.isalpha():
                counts.setdefault(word, Counter())[part] += times
    most_frequent = {}
    for word, parts in counts.items():
        most_frequent[word] = min(parts.items(), key=lambda item: (-item[1], item[0]))
    return most_frequent


def _warn_of_another_language(captions: Iterable[str]) -> None:
    words = [
        word for caption in captions for word in _WORD_OR_MARK.findall(caption) if word.isalpha()
    ]
    share = sum(word in _ENGLISH for word in words) / max(len(words), 1)
    if len(words) >= _WORDS_THAT_TELL and share < _ENGLISH_SHARE:
        logger.warning(
            "Only %.0f %% of the captions' words are %s: are they in English? The part-of-speech "
            "tagger is for English only; in another language its nouns, adjectives and verbs are "
            "meaningless.",
            100 * share,
            ", ".join(sorted(_ENGLISH)),
        )


def _tagger() -> Callable[[list[str]], list[str]]:
    """Return a function from words to parts of speech: "noun", "adjective", "verb" or "other"."""
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ModuleNotFoundError as error:
        raise UserError(
            "Concept sets need the part-of-speech tagger HanTa, which is not installed here.\n"
            'Install the pretraining extra: pip install "virtex_det[pretrain]"'
        ) from error
    tagger = HanoverTagger("morphmodel_en.pgz")
    return lambda words: [_part_of_speech(tag) for tag in tagger.tag_sent(words, taglevel=0)]


def _part_of_speech(tag: str) -> str:
    return next((part for prefix, part in _TAG_PREFIXES.items() if tag.startswith(prefix)), "other")


def _is_whole(concept: Concept) -> bool:
    numbers = (concept.count, concept.token_id)
    return (
        is_name(concept.word)
        and concept.part_of_speech in PARTS_OF_SPEECH
        and all(type(number) is int and number >= 0 for number in numbers)
    )


def _checked(content: Any) -> ConceptSet:
    """Return the concept set in JSON content; raise ValueError if it is invalid."""
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        raise ValueError(f'it has no "schema": {_SCHEMA}')
    try:
        concepts = tuple(Concept(**entry) for entry in content["concepts"])
        parts, sha256 = tuple(map(str, content["parts_of_speech"])), content["tokenizer_sha256"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error
    wrong = next((concept for concept in concepts if not _is_whole(concept)), None)
    is_listed = (
        isinstance(content["parts_of_speech"], list) and {*parts} <= {*PARTS_OF_SPEECH} and parts
    )
    if not is_listed or len({*parts}) < len(parts):
        raise ValueError(
            f"its parts_of_speech {parts!r:.80} are not some of {', '.join(PARTS_OF_SPEECH)}, "
            "each once"
        )
    if wrong is not None or not concepts or not is_name(sha256):
        raise ValueError(f"{wrong or 'its hash or its list of concepts'} is invalid")
    return ConceptSet(sha256, parts, concepts)
