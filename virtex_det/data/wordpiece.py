"""BERT's WordPiece vocabulary: encoding and decoding of captions."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from virtex_det.bert_folder import VOCABULARY, bert_folder, needs_transformers
from virtex_det.errors import UserError


class WordPieceTokenizer:
    """Encodes captions to BERT's token ids and decodes them, like SentencePieceTokenizer.

    [CLS] and [SEP] are the boundaries. In BERT-base padding is 0, as in SentencePieceTokenizer, and
    the unknown token is 100.
    """

    def __init__(self, source: str | Path) -> None:
        """Read the vocabulary of a BERT.

        Args:
            source: as for ``bert_folder``.

        Raises:
            UserError: there is no such BERT, or its vocabulary is missing or invalid.
        """
        folder = bert_folder(source, VOCABULARY)
        try:
            from transformers import BertTokenizer
        except ModuleNotFoundError as error:
            raise needs_transformers(error) from error
        try:
            self._tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # tokenizers raises no narrower one
            raise UserError(
                f"Cannot read the vocabulary in {folder}: {error}\n"
                "Download or copy the folder again."
            ) from error
        self._check_special_tokens(folder)
        self.pad_id: int = self._tokenizer.pad_token_id
        self.unk_id: int = self._tokenizer.unk_token_id
        self.sos_id: int = self._tokenizer.cls_token_id
        self.eos_id: int = self._tokenizer.sep_token_id
        self.mask_id: int = self._tokenizer.mask_token_id

    def _check_special_tokens(self, folder: Path) -> None:
        # transformers appends missing special tokens to the vocabulary; BERT has no embedding for
        # them.
        lacking = self._tokenizer.convert_ids_to_tokens(
            range(self._tokenizer.vocab_size, len(self._tokenizer))
        )
        faults = [f"it lacks {', '.join(lacking)}"] if lacking else []
        if self._tokenizer.pad_token_id != 0:
            faults.append(f"[PAD] has id {self._tokenizer.pad_token_id}")
        if faults:
            raise UserError(
                f"The vocabulary in {folder} is not BERT's: {' and '.join(faults)}.\n"
                "Expected [PAD] with id 0, and [UNK], [CLS], [SEP] and [MASK]."
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, including the special ones."""
        return len(self._tokenizer)

    @property
    def sha256(self) -> str:
        """Hash of the tokens in the order of their ids, and of the lower-casing option."""
        pieces = self._tokenizer.convert_ids_to_tokens(range(self.vocab_size))
        case = f"do_lower_case {self._tokenizer.do_lower_case}"
        return hashlib.sha256("\n".join([case, *pieces]).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a caption, without boundaries; "[CLS]" is plain text."""
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids, without boundaries, masks, unknown tokens and padding."""
        return self._tokenizer.decode([int(i) for i in token_ids], skip_special_tokens=True)
