"""The choice of a tokenizer by its name: SentencePiece or BERT's WordPiece."""

from pathlib import Path

from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.data.wordpiece import WordPieceTokenizer

Tokenizer = SentencePieceTokenizer | WordPieceTokenizer


def read_tokenizer(source: str) -> Tokenizer:
    """Read the tokenizer that INPUT.CAPTION.TOKENIZER names.

    Args:
        source: a SentencePiece model file, or the folder or hub name of a BERT.

    Raises:
        UserError: it cannot be read.
    """
    return (
        SentencePieceTokenizer(source) if is_sentencepiece(source) else WordPieceTokenizer(source)
    )


def is_sentencepiece(source: str) -> bool:
    """Return whether a name is that of a SentencePiece file, not of a BERT; True for ""."""
    return not source or source.endswith(".model") or Path(source).is_file()
