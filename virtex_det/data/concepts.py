"""Concept sets (ICMLM): the most frequent nouns, adjectives and verbs of captions, which are masked or predicted."""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from virtex_det.data.datasets.ids import is_name
from virtex_det.data.tokenizer import normalize_caption
from virtex_det.data.wordpiece import Tokenizer
from virtex_det.errors import UserError
from virtex_det.text_files import read_json
from virtex_det.utils import write_atomically

logger = logging.getLogger(__name__)

# HanTa's tags are those of the British National Corpus (C5). Be, do and have are no verbs here: most are auxiliaries.
_TAG_PREFIXES = {"NN": "noun", "NP0": "noun", "AJ": "adjective", "VV": "verb"}
PARTS_OF_SPEECH = ("noun", "adjective", "verb")

_SCHEMA = 1
# A fifth or more of English captions' words are of these; a twentieth at most in other languages.
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
    """A word that stands for something to see."""

    word: str  # as it stands in captions, in lower case and without accents
    part_of_speech: str
    count: int  # how often it stands in the captions as this part of speech
    token_id: int  # the one piece that it is


@dataclass(frozen=True)
class ConceptSet:
    """The concepts of some captions, most frequent first, and what they were chosen with."""

    tokenizer_sha256: str
    parts_of_speech: tuple[str, ...]
    concepts: tuple[Concept, ...]

    def write(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all."""
        write_atomically(path, json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> "ConceptSet":
        """Read what ``write`` wrote.

        Raises:
            UserError: there is no such file, it is cut short, or holds something else.
        """
        if not Path(path).is_file():
            raise UserError(f"Cannot read the concept set '{path}': No such file.\n{_HOW_TO_BUILD}")
        try:
            return _checked(read_json(path, "a concept set"))
        except (UserError, ValueError) as error:
            raise UserError(f"{path} is no concept set, or only a part of one: {error}.\n{_HOW_TO_BUILD}") from error

    def require_tokenizer(self, sha256: str) -> None:
        """Refuse another tokenizer than the one that the concepts were chosen with: their ids would be other words.

        Raises:
            UserError: the tokenizer has another hash.
        """
        if sha256 != self.tokenizer_sha256:
            raise UserError(
                "The concept set INPUT.CAPTION.CONCEPTS was built with another tokenizer than INPUT.CAPTION.TOKENIZER: "
                f"its sha256 is {self.tokenizer_sha256[:12]}..., this one's {sha256[:12]}...\n"
                f"Build it anew with this tokenizer. {_HOW_TO_BUILD}"
            )

    def require_pieces(self, tokenizer: Tokenizer) -> None:
        """Refuse a set that was edited into one with words that captions would never be found to have.

        Raises:
            UserError: a word is not the one piece of the tokenizer that the set says, or is there twice.
        """
        ids = [concept.token_id for concept in self.concepts]
        twice = {token_id for token_id, times in Counter(ids).items() if times > 1}
        for word, token_id in ((concept.word, concept.token_id) for concept in self.concepts):
            if token_id in twice or tokenizer.encode(word) != [token_id] or normalize_caption(word) != word:
                raise UserError(
                    f"The concept {word!r} in INPUT.CAPTION.CONCEPTS has token_id {token_id}"
                    f"{', as another one has' if token_id in twice else ''}; of the tokenizer its pieces are "
                    f"{tokenizer.encode(word)}.\nA concept is one piece, in lower case and without accents, and there "
                    "once: mend its entry or take it out."
                )


def build_concepts(
    captions: Iterable[str],
    tokenizer: Tokenizer,
    tokenizer_sha256: str,
    parts_of_speech: Sequence[str] = PARTS_OF_SPEECH,
    size: int = 5000,
) -> ConceptSet:
    """Choose the most frequent words of some parts of speech of English captions (ICMLM).

    Our choices, where the paper is not known: a word goes by its most frequent part of speech, words are counted as
    they stand, not by their lemma, and only those that are one piece of the tokenizer are taken, so that one [MASK]
    hides a whole word. Ties go by the alphabet.

    Args:
        captions: to choose from.
        tokenizer: the run's.
        tokenizer_sha256: its hash.
        parts_of_speech: of PARTS_OF_SPEECH.
        size: the set has fewer when there are no more.

    Raises:
        UserError: HanTa is not installed, no word remains, or the size is below 1.
    """
    if size < 1:
        raise UserError(f"A concept set of {size} words cannot be; --size must be 1 or more.")
    found = (
        Concept(word, part, count, pieces[0])
        for word, (part, count) in _most_frequent_parts(captions).items()
        # Letters of a mathematical font are lower-cased only when normalised again.
        if word == normalize_caption(word)
        and part in parts_of_speech
        and len(pieces := tokenizer.encode(word)) == 1
        and pieces[0] != tokenizer.unk_id
    )
    concepts = sorted(found, key=lambda concept: (-concept.count, concept.word))[:size]
    if not concepts:
        raise UserError(
            f"The captions have no {' or '.join(parts_of_speech)} that is one piece of the tokenizer.\n"
            "Check that the datasets have captions, and that the vocabulary was built from them."
        )
    return ConceptSet(tokenizer_sha256, tuple(parts_of_speech), tuple(concepts))


def _most_frequent_parts(captions: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return each word's most frequent part of speech, and how often it is that."""
    counts: dict[str, Counter[str]] = {}
    tag = _tagger()
    distinct = Counter(normalize_caption(caption) for caption in captions)
    _warn_of_another_language(distinct)
    for caption, times in tqdm(distinct.items(), "Tagging captions", unit=" captions", mininterval=1):
        words = _WORD_OR_MARK.findall(caption)
        for word, part in zip(words, tag(words), strict=True):
            if word.isalpha():
                counts.setdefault(word, Counter())[part] += times
    return {word: min(parts.items(), key=lambda item: (-item[1], item[0])) for word, parts in counts.items()}


def _warn_of_another_language(captions: Iterable[str]) -> None:
    words = [word for caption in captions for word in _WORD_OR_MARK.findall(caption) if word.isalpha()]
    share = sum(word in _ENGLISH for word in words) / max(len(words), 1)
    if len(words) >= _WORDS_THAT_TELL and share < _ENGLISH_SHARE:
        logger.warning(
            "Only %.0f %% of the captions' words are %s: are they in English? The part-of-speech tagger knows no other "
            "language, and what it takes for nouns, adjectives and verbs of one is no concept set.",
            *(100 * share, ", ".join(sorted(_ENGLISH))),
        )


def _tagger() -> Callable[[list[str]], list[str]]:
    """Return what maps the words of a caption to "noun", "adjective", "verb" or "other" each."""
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ModuleNotFoundError as error:
        raise UserError(
            "Concept sets need the part-of-speech tagger HanTa, which is not installed here.\n"
            'Install the pretraining extra: pip install -e ".[pretrain]"'
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
    """Return the concept set that JSON describes; ValueError says what is wrong with it."""
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        raise ValueError(f'it has no "schema": {_SCHEMA}')
    try:
        concepts = tuple(Concept(**entry) for entry in content["concepts"])
        parts, sha256 = tuple(map(str, content["parts_of_speech"])), content["tokenizer_sha256"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error
    wrong = next((concept for concept in concepts if not _is_whole(concept)), None)
    is_listed = isinstance(content["parts_of_speech"], list) and {*parts} <= {*PARTS_OF_SPEECH} and parts
    if not is_listed or len({*parts}) < len(parts):
        raise ValueError(f"its parts_of_speech {parts!r:.80} are not of {', '.join(PARTS_OF_SPEECH)}, each once")
    if wrong is not None or not concepts or not is_name(sha256):
        raise ValueError(f"{wrong or 'its hash or its list of concepts'} is invalid")
    return ConceptSet(sha256, parts, concepts)
