"""LocCa's texts: a caption, the box of a region's caption, and the caption of a region's box."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor

from virtex_det.data.tokenizers import Tokenizer, read_tokenizer
from virtex_det.errors import UserError

# Lower case, as the vocabularies are.
CAPTION, REFERRING, GROUNDED, SEPARATOR = "cap:", "aref:", "gcap:", ":"


class PromptedText(NamedTuple):
    """A text behind a prompt, from [SOS] to [EOS]."""

    tokens: Tensor  # (L,) int64
    labels: Tensor  # (L,) int64: the tokens of the answer and [EOS]; 0 where a token is given


class RegionTexts:
    """Writes the three texts of LocCa (Wan et al. 2024; SigLIP 2, sec. 2.2) as tokens.

    They are "cap: CAPTION", "aref: REGION : BOX" and "gcap: BOX : REGION". What stands before the
    answer is given; the model does not predict it. Ours: the order of a box's numbers (left, top,
    right, bottom); and of too long a text, words are cut, never the box.

    Example:
        >>> texts = RegionTexts(tokenizer, max_length=30, bins=100)  # doctest: +SKIP
        >>> tokens, labels = texts.referring("a ring", (0.25, 0, 0.5, 1))  # doctest: +SKIP
        >>> tokenizer.decode(tokens)  # doctest: +SKIP
        'aref: a ring : 25 0 50 99'
        >>> tokenizer.decode(labels)  # doctest: +SKIP
        '25 0 50 99'
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, bins: int) -> None:
        """
        Args:
            tokenizer: encodes all texts.
            max_length: tokens per text, prompt, box and boundaries included.
            bins: a box's numbers are 0 to bins - 1.

        Raises:
            UserError: the tokenizer lacks a character of the prompts and numbers, or `max_length`
                leaves no room for a word beside them.
        """
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._bins = bins
        _check_characters(tokenizer)
        self._check_room()

    def caption(self, text: str) -> PromptedText:
        """Return a caption: all of it is to be predicted."""
        prompt = self._tokenizer.encode(CAPTION)
        return self._prompted(prompt, self._cut(text, len(prompt)))

    def referring(self, text: str, box: Sequence[float]) -> PromptedText:
        """Return the caption of a region and its box, which is to be predicted.

        Args:
            text: the region's caption.
            box: left, top, right and bottom as fractions of the image.
        """
        prompt, separator = map(self._tokenizer.encode, (REFERRING, SEPARATOR))
        numbers = self._tokenizer.encode(box_text(box, self._bins))
        words = self._cut(text, len(prompt) + len(separator) + len(numbers))
        return self._prompted([*prompt, *words, *separator], numbers)

    def grounded(self, text: str, box: Sequence[float]) -> PromptedText:
        """Return the box of a region and its caption, which is to be predicted.

        Args:
            text: the region's caption.
            box: left, top, right and bottom as fractions of the image.
        """
        numbers = box_text(box, self._bins)
        given = self._tokenizer.encode(f"{GROUNDED} {numbers} {SEPARATOR}")
        return self._prompted(given, self._cut(text, len(given)))

    def _cut(self, text: str, others: int) -> list[int]:
        return self._tokenizer.encode(text)[: self._max_length - 2 - others]

    def _prompted(self, given: Sequence[int], answer: Sequence[int]) -> PromptedText:
        tokens = torch.tensor([self._tokenizer.sos_id, *given, *answer, self._tokenizer.eos_id])
        labels = tokens.clone()
        labels[: 1 + len(given)] = self._tokenizer.pad_id
        return PromptedText(tokens, labels)

    def _check_room(self) -> None:
        longest = max(range(self._bins), key=lambda number: len(self._encode_number(number)))
        prompts = max((REFERRING, GROUNDED), key=lambda prompt: len(self._tokenizer.encode(prompt)))
        others = len(self._tokenizer.encode(f"{prompts} {SEPARATOR}"))
        needed = 2 + others + 4 * len(self._encode_number(longest))
        if needed >= self._max_length:
            raise UserError(
                f"INPUT.CAPTION.MAX_LENGTH is {self._max_length}, but the prompt, the box and the "
                f"boundaries of a LocCa text take up to {needed} tokens.\n"
                f"Set it to {needed} and the tokens of the longest caption, such as {needed + 20}; "
                "or lower INPUT.CAPTION.BOX_BINS."
            )

    def _encode_number(self, number: int) -> list[int]:
        return self._tokenizer.encode(str(number))


def box_text(box: Sequence[float], bins: int) -> str:
    """Return a box as four whole numbers.

    Args:
        box: left, top, right and bottom as fractions of the image.
        bins: the numbers are 0 to bins - 1.

    Example:
        >>> box_text((0.25, 0.0, 0.5, 1.0), bins=100)
        '25 0 50 99'
    """
    return " ".join(str(min(int(side * bins), bins - 1)) for side in box)


def vocabulary_texts(bins: int) -> Iterator[str]:
    """Yield what a vocabulary has to learn besides captions, so that it can write LocCa's texts.

    Args:
        bins: as INPUT.CAPTION.BOX_BINS.
    """
    yield f"{CAPTION} {REFERRING} {GROUNDED} {SEPARATOR}"
    yield " ".join(map(str, range(bins)))


def read_caption_prompt(cfg: CfgNode) -> tuple[int, ...]:
    """Return the tokens of the prompt before a caption, by the tokenizer of a config.

    There are none if the tokenizer's file is not here and MODEL.TEXTUAL.VOCAB_SIZE is set: then a
    model can be built without the file, to inspect it.

    Raises:
        UserError: the tokenizer cannot be read.
    """
    source = cfg.INPUT.CAPTION.TOKENIZER
    if cfg.MODEL.TEXTUAL.VOCAB_SIZE and not (source and Path(source).exists()):
        return ()
    return tuple(read_tokenizer(source).encode(CAPTION))


def _check_characters(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer without a piece for a digit or for a character of the prompts."""
    parts = (CAPTION, REFERRING, GROUNDED, SEPARATOR, *"0123456789")
    unknown = [part for part in parts if tokenizer.unk_id in tokenizer.encode(part)]
    if unknown:
        raise UserError(
            "LocCa writes prompts and boxes as text, but the tokenizer INPUT.CAPTION.TOKENIZER has "
            f"no pieces for {', '.join(unknown)}.\n"
            "Build one that has them: python tools/build_vocabulary.py --dataset NAME "
            "--boxes N --vocab-size V --output PATH, with N as INPUT.CAPTION.BOX_BINS."
        )
