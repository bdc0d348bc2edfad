"""Padding of captions to one length."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_captions(captions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad captions on the right; return the tokens and a mask of the padding.

    The mask is needed because the unknown token of a SentencePiece vocabulary has the padding's id.

    Args:
        captions: int64, each (length,).

    Returns:
        Tokens (captions, longest), 0 at padding; and bool of that shape, True at padding.

    Example:
        >>> tokens, padding = pad_captions([torch.tensor([1, 7, 2]), torch.tensor([1, 2])])
        >>> tokens
        tensor([[1, 7, 2],
                [1, 2, 0]])
        >>> padding
        tensor([[False, False, False],
                [False, False,  True]])
    """
    tokens = pad_sequence([*captions], batch_first=True)
    lengths = torch.tensor([len(caption) for caption in captions], device=tokens.device)
    return tokens, torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
