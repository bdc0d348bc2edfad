"""The mapper of captioning: an augmented image and one tokenised caption."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concept_words import ConceptWords, read_concept_words
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.data.tokenizers import Tokenizer, read_tokenizer
from virtex_det.data.vocabulary import check_vocabulary_size
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

_LOOKED_AT = 100_000  # images whose captions are searched for the words of a flip
LEFT_AND_RIGHT = (("left", "right"),)
_EXPECTED_PAIRS = (
    'expected pairs of words, each word once, such as (("left", "right"), ("links", "rechts")).'
)
# First words of the Unicode names of letters in scripts with spaces between words.
_SPACED = (
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "ARMENIAN",
    "GEORGIAN",
    "HEBREW",
    "ARABIC",
    "DEVANAGARI",
    "BENGALI",
    "TAMIL",
)


@MAPPER_REGISTRY.register()
class CaptionMapper(PretrainingMapper):
    """Makes an augmented image and some of its captions; a flip swaps words (VirTex, sec. 3.2).

    It is one caption by default, as in VirTex; INPUT.CAPTION.PER_IMAGE sets more.

    Example:
        >>> mapper = CaptionMapper(cfg, is_train=True)  # doctest: +SKIP
        >>> mapper({"file_name": "a.jpg", "image_id": 1, "captions": ["a dog"]})  # doctest: +SKIP
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        tokenizer: Tokenizer,
        max_length: int,
        flip_words: Sequence[tuple[str, str]] = LEFT_AND_RIGHT,
        visible_words: ConceptWords | None = None,
        **image_options: Any,
    ) -> None:
        """Make a mapper from a config, ``CaptionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw captions and the flip; otherwise take the first caption and do not flip.
            tokenizer: encodes captions.
            max_length: tokens per caption, boundaries included.
            flip_words: pairs of words to swap when the image is flipped.
            visible_words: [MASK] replaces all other words; None hides no word.
            image_options: options of ``PretrainingMapper``.
        """
        super().__init__(is_train, **image_options)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.exchange = WordExchange(flip_words)
        self.visible_words = visible_words

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT and INPUT.CAPTION."""
        caption = cfg.INPUT.CAPTION
        tokenizer = read_tokenizer(cfg.INPUT.CAPTION.TOKENIZER)
        check_vocabulary_size(cfg, tokenizer.vocab_size)
        image_options = super().from_config(cfg, is_train)
        own_options = {
            "tokenizer": tokenizer,
            "max_length": caption.MAX_LENGTH,
            "flip_words": caption.FLIP_WORDS,
            "visible_words": (
                read_concept_words(cfg, tokenizer) if caption.HIDE_OTHER_WORDS else None
            ),
        }
        return {**image_options, **own_options}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            "image" (3, S, S) uint8, "caption_tokens" (L,) int64 from [SOS] to [EOS], "image_id",
            "height", "width". With several captions each has its own dict, in "by_caption", with
            the keys that are about it, here "caption_tokens".

        Raises:
            UserError: the image cannot be read or has no caption.
        """
        example, is_flipped = self.map_image(dataset_dict)
        captions = self.choose_captions(dataset_dict)
        if is_flipped:
            captions = [self.exchange(caption) for caption in captions]
        image_id = example["image_id"]
        return self.with_captions(
            example, [self.map_caption(caption, image_id) for caption in captions]
        )

    def map_caption(self, caption: str, image_id: int | str) -> dict[str, torch.Tensor]:
        """Return what is to be learned of a caption.

        Args:
            caption: words already exchanged if the image is flipped.
            image_id: seeds what a subclass draws in evaluation.
        """
        return {"caption_tokens": self.hide_words(torch.tensor(self._tokens(caption)))}

    def hide_words(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return a caption (L,) with [MASK] for the words to hide; its boundaries stay."""
        if self.visible_words is None:
            return tokens
        stays = torch.zeros(len(tokens), dtype=torch.bool)
        stays[[0, -1]] = True
        stays[self.visible_words.positions(tokens, self.max_length)] = True
        return tokens.masked_fill(~stays, self.tokenizer.mask_id)

    def choose_captions(self, dataset_dict: dict[str, Any]) -> list[str]:
        """Return the captions to read, in random order in training.

        Raises:
            UserError: there is no caption.
        """
        captions = captions_in(dataset_dict)
        return [captions[number] for number in self.choose(len(captions))]

    def warn_of_missing_words(self, dicts: Sequence[Mapping[str, Any]]) -> None:
        """Warn of words to swap in a flip that no caption has, as in another language.

        Args:
            dicts: the training images; of more than 100,000 a part, at even distances, is read.
        """
        some = dicts[:: len(dicts) // _LOOKED_AT + 1]
        captions = (str(caption) for entry in some for caption in entry.get("captions", ()))
        missing = self.exchange.missing_in(captions) if self.is_train and self.flip_prob else []
        if missing:
            logger.warning(
                "No caption has %s (INPUT.CAPTION.FLIP_WORDS, words that a flip of the image "
                "exchanges). Set the pairs of the captions' language; () exchanges none",
                ", ".join(missing),
            )

    def _tokens(self, caption: str) -> list[int]:
        # Only text is cut, no boundary. VirTex's public code also cuts [EOS], so that its backward
        # decoder starts in the middle of long captions.
        pieces = self.tokenizer.encode(caption)[: self.max_length - 2]
        return [self.tokenizer.sos_id, *pieces, self.tokenizer.eos_id]


def captions_in(dataset_dict: Mapping[str, Any]) -> Sequence[str]:
    """Return the captions of a dataset dict.

    Raises:
        UserError: it has none.
    """
    captions = dataset_dict.get("captions")
    if not captions:
        raise UserError(
            f"No caption for image {dataset_dict['file_name']}; pretraining needs at least one per "
            "image.\n"
            "Name a dataset with captions, such as coco_2017_train_captions, in DATASETS.TRAIN "
            "and TEST."
        )
    return captions


class WordExchange:
    """Swaps words of a caption, such as "left" and "right", for a horizontal flip of its image.

    Only whole words match, in any case, which is kept; in scripts without spaces words match
    anywhere.

    Example:
        >>> WordExchange(LEFT_AND_RIGHT)("Left of a bright light, right?")
        'Right of a bright light, left?'
        >>> WordExchange([("links", "rechts")])("Rechts im Bild eine Hand, die linke")
        'Links im Bild eine Hand, die linke'
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """
        Args:
            pairs: as INPUT.CAPTION.FLIP_WORDS; none changes nothing.

        Raises:
            UserError: the argument is not pairs of words, or a word is in two pairs.
        """
        are_pairs = isinstance(pairs, Sequence) and not isinstance(pairs, str)
        if not are_pairs or not all(_is_pair(pair) for pair in pairs):
            raise UserError(f"INPUT.CAPTION.FLIP_WORDS is {pairs!r}; {_EXPECTED_PAIRS}")
        words = [_fold(word) for pair in pairs for word in pair]
        twice = [word for word, count in Counter(words).items() if count > 1]
        if twice:
            raise UserError(
                f"INPUT.CAPTION.FLIP_WORDS has {twice[0]!r} twice, in {pairs!r}; {_EXPECTED_PAIRS}"
            )
        self._opposites = {_fold(one): other for pair in pairs for one, other in (pair, pair[::-1])}
        longest_first = sorted(words, key=len, reverse=True)
        self._words = (
            re.compile("|".join(map(_pattern, longest_first)), re.IGNORECASE) if words else None
        )

    def __call__(self, caption: str) -> str:
        """Return the caption with each of the words replaced by its opposite."""
        if self._words is None:
            return caption
        composed = unicodedata.normalize("NFC", caption)
        exchanged = self._words.sub(self._opposite, composed)
        return caption if exchanged == composed else exchanged

    def missing_in(self, captions: Iterable[str]) -> list[str]:
        """Return the words that occur in no caption; reading ends when all have occurred."""
        missing = dict.fromkeys(self._opposites)
        for caption in captions:
            if self._words is None or not missing:
                break
            for word in self._words.findall(unicodedata.normalize("NFC", caption)):
                missing.pop(_fold(word), None)
        return list(missing)

    def _opposite(self, word: re.Match) -> str:
        found, opposite = word[0], self._opposites.get(_fold(word[0]), word[0])
        if found.isupper() and len(found) > 1:
            return opposite.upper()
        return opposite[0].upper() + opposite[1:] if found[0].isupper() else opposite


def _is_pair(pair: Any) -> bool:
    is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    return is_pair and all(isinstance(word, str) and word.strip() for word in pair)


def _fold(word: str) -> str:
    return unicodedata.normalize("NFC", word.strip()).casefold()


def _pattern(word: str) -> str:
    """Return a pattern of a whole word; scripts such as CJK have no spaces between words."""
    start, end = (
        r"\b" if unicodedata.name(letter, "").startswith(_SPACED) else ""
        for letter in (word[0], word[-1])
    )
    return f"{start}{re.escape(word)}{end}"
