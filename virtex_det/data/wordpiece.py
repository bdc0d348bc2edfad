"""BERT's WordPiece vocabulary, and the choice between it and SentencePiece."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from virtex_det.bert_folder import VOCABULARY, bert_folder, needs_transformers
from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.errors import UserError


class WordPieceTokenizer:
    """Captions to BERT's token ids and back, with the methods of SentencePieceTokenizer.

    [CLS] and [SEP] are the boundaries. In BERT-base padding is 0, as in ours; the unknown piece is 100.
    """

    def __init__(self, source: str | Path) -> None:
        """Read the vocabulary of a BERT.

        Args:
            source: its folder, or its name on Hugging Face's hub.

        Raises:
            UserError: there is no such BERT, it has no vocabulary, or one that is not of BERT's form.
        """
        folder = bert_folder(source, VOCABULARY)
        try:
            from transformers import BertTokenizer
        except ModuleNotFoundError as error:
            raise needs_transformers(error) from error
        try:
            self._tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # tokenizers raises no narrower one
            raise UserError(f"The vocabulary in {folder} cannot be read: {error}\nBring the folder again.") from error
        self._check_special_tokens(folder)
        self.pad_id: int = self._tokenizer.pad_token_id
        self.unk_id: int = self._tokenizer.unk_token_id
        self.sos_id: int = self._tokenizer.cls_token_id
        self.eos_id: int = self._tokenizer.sep_token_id
        self.mask_id: int = self._tokenizer.mask_token_id

    def _check_special_tokens(self, folder: Path) -> None:
        # transformers adds what special tokens a vocabulary lacks behind its end, where BERT has no embedding for them.
        lacking = self._tokenizer.convert_ids_to_tokens(range(self._tokenizer.vocab_size, len(self._tokenizer)))
        if lacking or self._tokenizer.pad_token_id != 0:
            raise UserError(
                f"The vocabulary in {folder} is not BERT's: it lacks {', '.join(lacking) or 'nothing'}, and [PAD] has "
                f"id {self._tokenizer.pad_token_id}.\nExpected [PAD], with id 0, [UNK], [CLS], [SEP] and [MASK]."
            )

    @property
    def vocab_size(self) -> int:
        """Number of pieces, the special ones included."""
        return len(self._tokenizer)

    @property
    def sha256(self) -> str:
        """Hash of the pieces in the order of their ids, and of whether case is dropped."""
        pieces = self._tokenizer.convert_ids_to_tokens(range(self.vocab_size))
        case = f"do_lower_case {self._tokenizer.do_lower_case}"
        return hashlib.sha256("\n".join([case, *pieces]).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Token ids of a caption, without boundaries; the name of a special token is text like any other."""
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of token ids; boundaries, masks, unknown pieces and padding leave no trace."""
        return self._tokenizer.decode([int(i) for i in token_ids], skip_special_tokens=True)


Tokenizer = SentencePieceTokenizer | WordPieceTokenizer


def read_tokenizer(source: str) -> Tokenizer:
    """Read the tokenizer that INPUT.CAPTION.TOKENIZER names.

    Args:
        source: a SentencePiece model file, or the folder or hub name of a BERT.

    Raises:
        UserError: it cannot be read.
    """
    return SentencePieceTokenizer(source) if is_sentencepiece(source) else WordPieceTokenizer(source)


def tokenizer_sha256(source: str) -> str:
    """Return the hash by which files made with a tokenizer know it: of the model file, or of BERT's pieces.

    Raises:
        UserError: it cannot be read.
    """
    tokenizer = read_tokenizer(source)
    if isinstance(tokenizer, WordPieceTokenizer):
        return tokenizer.sha256
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def is_sentencepiece(source: str) -> bool:
    """Return whether a name is not that of a BERT; an empty name, a forgotten tokenizer, counts as SentencePiece."""
    return not source or source.endswith(".model") or Path(source).is_file()
