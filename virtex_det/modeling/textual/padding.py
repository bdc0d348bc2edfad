"""Captions of several lengths as one tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_captions(captions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad captions on the right, and say where: an unknown token of a SentencePiece vocabulary has padding's id.

    Args:
        captions: int64, each (length,).

    Returns:
        Tokens (captions, longest), 0 where there is none; and bool of that shape, True where there is none.
    """
    tokens = pad_sequence([*captions], batch_first=True)
    lengths = torch.tensor([len(caption) for caption in captions], device=tokens.device)
    return tokens, torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
