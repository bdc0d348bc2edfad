"""The words of a concept set among the tokens of a caption."""

import re
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import Tensor

from virtex_det.data.concepts import ConceptSet
from virtex_det.data.tokenizers import Tokenizer


class ConceptWords:
    """Finds concept words in tokens, as whole words.

    Attributes:
        concepts: the concepts; `index` counts them.

    Example:
        >>> words = read_concept_words(cfg, tokenizer)  # doctest: +SKIP
        >>> words.positions(torch.tensor([1, 5, 7, 2]), max_length=30)  # doctest: +SKIP
        tensor([2])
    """

    def __init__(self, concepts: ConceptSet, tokenizer: Tokenizer) -> None:
        """
        Args:
            concepts: a set that was built with this tokenizer.
            tokenizer: the captions' tokenizer.

        Raises:
            UserError: a concept is not a single token of the tokenizer.
        """
        concepts.require_pieces(tokenizer)
        self.concepts = concepts.concepts
        self._tokenizer = tokenizer
        self._whole_words: dict[tuple[int, ...], bool] = {}
        token_ids = [concept.token_id for concept in self.concepts]
        self._numbers = {token_id: number for number, token_id in enumerate(token_ids)}
        self._index = torch.full((tokenizer.vocab_size,), -1)
        self._index[token_ids] = torch.arange(len(self.concepts))

    def index(self, tokens: Tensor) -> Tensor:
        """Return for each token the number of its concept, -1 for other tokens."""
        return self._index[tokens]

    def positions(self, tokens: Tensor, max_length: int) -> Tensor:
        """Return the positions (n,) of concepts in tokens (L,), as whole words.

        The token "cat" at the start of "catfish" is not one. Nor is the last token of a full-length
        caption: the rest of its word may have been cut.

        Args:
            tokens: a caption with its boundaries.
            max_length: tokens of the longest caption, boundaries included.
        """
        listed = tokens.tolist()
        found = [
            position
            for position, token in enumerate(listed[: max_length - 2])
            if token in self._numbers and self._is_whole_word(listed[position : position + 2])
        ]
        return torch.tensor(found, dtype=torch.int64)

    def are_in(self, text: str) -> bool:
        """Return whether one of the words is in a text, however long it is."""
        tokens = [self._tokenizer.sos_id, *self._tokenizer.encode(text), self._tokenizer.eos_id]
        # Nothing is cut, so the last word counts, too.
        return len(self.positions(torch.tensor(tokens), max_length=len(tokens) + 1)) > 0

    def _is_whole_word(self, tokens: Sequence[int]) -> bool:
        """Return whether a concept's token is a whole word, given the token after it."""
        pair = tuple(tokens)
        if pair not in self._whole_words:  # few pairs occur, and decoding is the slowest step
            word = self.concepts[self._numbers[pair[0]]].word
            self._whole_words[pair] = re.findall(r"\w+", self._tokenizer.decode(pair))[:1] == [word]
        return self._whole_words[pair]


def read_concept_words(cfg: CfgNode, tokenizer: Tokenizer) -> ConceptWords:
    """Return the words of INPUT.CAPTION.CONCEPTS.

    Raises:
        UserError: the file cannot be read, or was built with another tokenizer.
    """
    concepts = ConceptSet.read(cfg.INPUT.CAPTION.CONCEPTS)
    concepts.require_tokenizer(tokenizer.sha256)
    return ConceptWords(concepts, tokenizer)
