"""A pretrained BERT (Devlin et al. 2019), read by the transformers library."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import trange

from virtex_det.bert_folder import (
    CONFIG,
    WEIGHTS,
    bert_folder,
    bert_name,
    needs_transformers,
)
from virtex_det.errors import UserError


class BertTextEncoder(nn.Module):
    """A pretrained BERT; a frozen one has no parameters, gradients or dropout.

    The weights of a frozen BERT are buffers that are not in the state dict: they are read again
    from their source, and each checkpoint is 440 MB smaller. A checkpoint keeps their hash, so that
    a run that resumes with another BERT stops instead of training on other vectors.

    Attributes:
        name: what records call it.
        output_size: width of a token's vector.
        vocab_size: tokens in its vocabulary.
        max_length: longest caption, in tokens.
    """

    fingerprint: Tensor

    def __init__(self, source: str | Path, frozen: bool = True, padding_idx: int = 0) -> None:
        """Read a BERT from safetensors, or from a pickle with torch's ``weights_only``.

        Within ``torch.device("meta")`` it has the shapes that its config.json describes.

        Args:
            source: as for ``bert_folder``.
            frozen: do not train it.
            padding_idx: padding token.

        Raises:
            UserError: there is no such BERT, its folder lacks a file, or its weights are
                incomplete.
        """
        super().__init__()
        self.source = str(source)
        self.frozen = frozen
        self.padding_idx = padding_idx
        bert = _shapes(source) if torch.empty(0).is_meta else _read(source)
        self.name = bert_name(source)
        self.output_size: int = bert.config.hidden_size
        self.vocab_size: int = bert.config.vocab_size
        self.max_length: int = bert.config.max_position_embeddings
        self.bert: nn.Module = bert
        if frozen:
            self._freeze()

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return BERT's last hidden state.

        Args:
            tokens: (captions, length), from [CLS] to [SEP].
            padding: (captions, length), True at padding; by default where the token is
                `padding_idx`.

        Returns:
            (captions, length, output_size).

        Raises:
            UserError: the loaded weights were trained with another BERT.
        """
        if self.frozen:
            self._check_fingerprint()
        has_token = tokens != self.padding_idx if padding is None else ~padding
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.bert(input_ids=tokens, attention_mask=has_token).last_hidden_state

    def train(self, mode: bool = True) -> "BertTextEncoder":
        """Set training mode; a frozen BERT stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def _freeze(self) -> None:
        for module in self.bert.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach(), persistent=False)
        self.register_buffer("fingerprint", _sha256(self.bert))
        self._unchecked: Tensor | None = self.fingerprint.clone()
        self.eval()

    def _check_fingerprint(self) -> None:
        """Compare the hash once, at the first forward, when a checkpoint may have been loaded."""
        if self._unchecked is not None and not torch.equal(self._unchecked, self.fingerprint.cpu()):
            raise UserError(
                "The loaded weights were trained with another BERT than the one now in "
                f"{self.source}.\n"
                "Set MODEL.TEXT_ENCODER.WEIGHTS to the BERT that they were trained with."
            )
        self._unchecked = None


def sentence_vectors(
    captions: Sequence[str],
    tokenizer: Any,
    encoder: Callable[[Tensor], Tensor],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    max_length: int = 64,
) -> np.ndarray:
    """Return the mean token vector of each caption.

    The mean is our choice: without fine-tuning it separates captions better than the vector of
    [CLS].

    Args:
        captions: n captions.
        tokenizer: the encoder's tokenizer.
        encoder: maps tokens (captions, length) to vectors (captions, length, size).
        device: device of the encoder.
        batch_size: captions at a time.
        max_length: tokens per caption, boundaries included; longer captions are cut.

    Returns:
        (n, size) float32.
    """
    batches = [
        _mean_vectors(captions[start : start + batch_size], tokenizer, encoder, device, max_length)
        for start in trange(0, len(captions), batch_size, desc="Encoding captions", unit="batch")
    ]
    return np.concatenate(batches)


@torch.inference_mode()
def _mean_vectors(
    captions: Sequence[str],
    tokenizer: Any,
    encoder: Callable[[Tensor], Tensor],
    device: Any,
    max_length: int,
) -> np.ndarray:
    rows = []
    for caption in captions:
        pieces = tokenizer.encode(caption)[: max_length - 2]
        rows.append(torch.tensor([tokenizer.sos_id, *pieces, tokenizer.eos_id]))
    # shape: (captions, length)
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id).to(device)
    has_token = (tokens != tokenizer.pad_id).unsqueeze(-1)
    # shape: (captions, size)
    means = (encoder(tokens) * has_token).sum(1) / has_token.sum(1)
    return means.float().cpu().numpy()


def _shapes(source: str | Path) -> Any:
    """Build a BERT without its pooler and without values."""
    folder = bert_folder(source, CONFIG)
    try:
        from transformers import BertConfig, BertModel
    except ModuleNotFoundError as error:
        raise needs_transformers(error) from error
    try:
        config = BertConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    return BertModel(config, add_pooling_layer=False)


def _read(source: str | Path) -> Any:
    """Read a BERT without its pooler; every tensor must be in the file."""
    folder = bert_folder(source, CONFIG, WEIGHTS)
    try:
        from safetensors import SafetensorError
        from transformers import BertConfig, BertModel
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise needs_transformers(error) from error
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its warnings are about missing tensors, which are errors below
    try:
        config = BertConfig.from_pretrained(folder, local_files_only=True)
        read: Any = BertModel.from_pretrained(
            folder,
            config=config,
            add_pooling_layer=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise _unreadable(folder, error) from error
    finally:
        logging.set_verbosity(verbosity)
    bert, report = read
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"The weights in {folder} do not fill the BERT that its config.json describes: "
            f"{len(missing)} tensors are missing, such as {missing[0]}.\n"
            "Use the config.json and the weights of the same BERT."
        )
    return bert.float()


def _unreadable(folder: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0]
    return UserError(
        f"Cannot read the BERT in {folder}: {reason}\nDownload or copy the folder again."
    )


def _sha256(module: nn.Module) -> Tensor:
    """Return the SHA-256 of all buffers as 32 bytes, without values where they have none."""
    if any(tensor.is_meta for tensor in module.buffers()):
        return torch.empty(32, dtype=torch.uint8, device="meta")
    digest = hashlib.sha256()
    for _, tensor in sorted(module.named_buffers()):
        digest.update(tensor.numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
