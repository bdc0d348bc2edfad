"""The SentencePiece vocabulary of captions: training, reading, encoding and decoding."""

import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from virtex_det.errors import UserError
from virtex_det.utils import replacing

CONTROL_SYMBOLS = ("[SOS]", "[EOS]", "[MASK]")
# In characters; SentencePiece takes fewer than 4,192 bytes, and a character has at most four.
_LONGEST_SENTENCE = 1000
_SENTENCEPIECES_UNKNOWN = "\u2585"


class SentencePieceTokenizer:
    """Encodes captions to token ids and decodes them, with VirTex's special ids."""

    unk_id = 0
    pad_id = 0
    sos_id = 1
    eos_id = 2
    mask_id = 3

    def __init__(self, model_file: str | Path) -> None:
        """Read a vocabulary of ``train_tokenizer``.

        Raises:
            UserError: the file is missing, is not a SentencePiece model, or has other special ids.
        """
        if not Path(model_file).is_file():
            raise UserError(f"Tokenizer file not found: '{model_file}'\n{_HOW_TO_BUILD}")
        self._model_file = Path(model_file)
        sentencepiece = _sentencepiece()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"Not a SentencePiece model: {model_file} ({error})\n{_HOW_TO_BUILD}"
            ) from error
        found = [self._processor.piece_to_id(symbol) for symbol in CONTROL_SYMBOLS]
        expected = [self.sos_id, self.eos_id, self.mask_id]
        if found != expected or self._processor.unk_id() != self.unk_id:
            raise UserError(
                f"Tokenizer {model_file} has ids {found} for {', '.join(CONTROL_SYMBOLS)}; "
                f"expected {expected}, and 0 for unknown pieces.\n"
                f"{_HOW_TO_BUILD}"
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, including the special ones."""
        return self._processor.get_piece_size()

    @property
    def sha256(self) -> str:
        """Hash of the model file."""
        return hashlib.sha256(self._model_file.read_bytes()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a caption, without boundaries."""
        return self._processor.encode(normalize_caption(text))

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids, without boundaries, masks and padding."""
        return self._processor.decode([int(i) for i in token_ids if i != self.pad_id])


def normalize_caption(text: str) -> str:
    """Lower-case a caption and strip its accents, as VirTex's public code does.

    Example:
        >>> normalize_caption("A Café")
        'a cafe'
    """
    return strip_accents(text.lower())


def strip_accents(text: str) -> str:
    """Remove accents and other combining characters, and decompose ligatures (NFKD)."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def train_tokenizer(
    captions: Iterable[str], model_file: str | Path, vocab_size: int = 10000
) -> None:
    """Train a byte-pair vocabulary with VirTex's settings (Desai and Johnson 2021, sec. 3.2).

    Args:
        captions: the training captions; their order does not matter.
        model_file: file to write, atomically.
        vocab_size: number of tokens, including the special ones.

    Raises:
        UserError: the captions do not allow a vocabulary of this size.
    """
    if type(vocab_size) is not int or not len(CONTROL_SYMBOLS) + 1 < vocab_size < 2**31:
        raise UserError(
            f"A vocabulary cannot have {vocab_size} tokens; choose a number such as 10000."
        )
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=(
                part for caption in captions for part in _sentences(normalize_caption(caption))
            ),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            control_symbols=list(CONTROL_SYMBOLS),
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:  # ValueError: the size has more than 32 bits
        raise UserError(_why_training_failed(str(error), vocab_size)) from error
    with replacing(Path(model_file)) as unfinished:
        unfinished.write_bytes(model.getvalue())


def _sentences(caption: str) -> Iterator[str]:
    """Split a caption at white space into parts that are not too long for SentencePiece.

    SentencePiece silently drops longer ones. Tokens do not cross white space, so the split does not
    change the vocabulary. Text without white space is split at the limit.
    """
    # SentencePiece also drops text with its own character for unknown tokens.
    rest = caption.replace(_SENTENCEPIECES_UNKNOWN, " ")
    while len(rest) > _LONGEST_SENTENCE:
        end = rest.rfind(" ", 0, _LONGEST_SENTENCE) + 1 or _LONGEST_SENTENCE
        yield rest[:end]
        rest = rest[end:]
    yield rest


_HOW_TO_BUILD = (
    "Build one with: python tools/build_vocabulary.py --dataset NAME --vocab-size N --output PATH\n"
    "and set INPUT.CAPTION.TOKENIZER to PATH."
)


def _sentencepiece() -> ModuleType:
    """Import SentencePiece only for captions: fine-tuning a detector does not need it."""
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        raise UserError(
            "Captions need SentencePiece, which is not installed here.\n"
            'Install the pretraining extra: pip install "virtex_det[pretrain]"'
        ) from error
    return sentencepiece


def _why_training_failed(error: str, vocab_size: int) -> str:
    if largest := re.search(r"too high.*<= (\d+)", error):
        return (
            f"Vocabulary size {vocab_size} is too large for these captions.\n"
            f"Use --vocab-size {largest[1]} or less, or give more captions."
        )
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return (
            f"Vocabulary size {vocab_size} is too small for the characters of these captions; use "
            f"at least {smallest[1]}."
        )
    if "sentences_.empty()" in error:
        return (
            "The captions are empty: a vocabulary needs text. Check that the dataset has captions."
        )
    return f"SentencePiece cannot train a vocabulary of {vocab_size} tokens: {error}"
