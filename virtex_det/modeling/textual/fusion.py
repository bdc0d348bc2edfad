"""Fusion heads of ICMLM: predict masked tokens from image grid and token vectors."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.errors import UserError
from virtex_det.modeling.textual.sizes import check_heads


class Masked(NamedTuple):
    """Encoded captions, and the positions of their masked tokens (the targets)."""

    text: Tensor  # (captions, length, text size)
    padding: Tensor  # (captions, length), True at padding
    images: Tensor  # (captions,) int64, index of the caption's image
    captions: Tensor  # (targets,) int64, index of the caption
    positions: Tensor  # (targets,) int64, index of the token


class TransformerFusion(nn.Module):
    """ICMLM_tfm: a transformer encoder over cells and tokens, and a classifier of masked tokens.

    We do not know the paper's sizes and chose the config's defaults, as well as GELU, layer norm
    after each block, no position embedding of cells (a ResNet's features encode their position),
    PyTorch's initial weights, and a classifier that shares no weights.

    Args:
        visual_feature_size: channels of the image grid.
        text_size: width of a token's vector, and of the transformer.
        vocab_size: tokens in the vocabulary.
        num_layers: encoder layers.
        attention_heads: heads per attention.
        feedforward_size: width inside each feed-forward block.
        dropout: in attention and feed-forward blocks.

    Example:
        >>> fusion = TransformerFusion(512, 16, 40, 1, 2, 32, dropout=0.1)
        >>> text, padding = torch.zeros(1, 5, 16), torch.zeros(1, 5, dtype=torch.bool)
        >>> first, third = torch.tensor([0]), torch.tensor([3])
        >>> masked = Masked(text, padding, images=first, captions=first, positions=third)
        >>> fusion(torch.zeros(1, 512, 7, 7), masked).shape
        torch.Size([1, 40])
    """

    def __init__(
        self,
        visual_feature_size: int,
        text_size: int,
        vocab_size: int,
        num_layers: int,
        attention_heads: int,
        feedforward_size: int,
        dropout: float,
    ):
        super().__init__()
        self.visual_projection = _visual_projection(visual_feature_size, text_size)
        layer = nn.TransformerEncoderLayer(
            text_size,
            attention_heads,
            feedforward_size,
            dropout,
            activation="gelu",
            batch_first=True,
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.output = nn.Linear(text_size, vocab_size)

    def forward(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return the logits of the masked tokens.

        Args:
            visual_grid: (images, channels, height, width).
            masked: captions of these images, any number of each.

        Returns:
            (targets, vocab_size).
        """
        sequence, padding = self._join(visual_grid, masked)
        features = self.transformer(sequence, src_key_padding_mask=padding)
        return self.output(features[masked.captions, masked.positions])

    def attention(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return the last layer's attention of each masked token over the cells, a mean over heads.

        Returns:
            (targets, height, width), each with sum 1; attention to tokens is left out.
        """
        sequence, padding = self._join(visual_grid, masked)
        *earlier, last = self.transformer.layers
        for layer in earlier:
            sequence = layer(sequence, src_key_padding_mask=padding)
        query = sequence[masked.captions, masked.positions].unsqueeze(1)
        seen, hidden = sequence[masked.captions], padding[masked.captions]
        # shape: (targets, 1, sequence)
        _, weights = last.self_attn(query, seen, seen, key_padding_mask=hidden)
        on_cells = weights[:, 0, masked.text.shape[1] :]
        return F.normalize(on_cells, p=1, dim=1).unflatten(1, visual_grid.shape[2:])

    def _join(self, visual_grid: Tensor, masked: Masked) -> tuple[Tensor, Tensor]:
        """Return tokens followed by cells, (captions, sequence, text_size), and their padding."""
        cells = self.visual_projection(_cells(visual_grid))[masked.images]
        padding = torch.cat([masked.padding, masked.padding.new_zeros(cells.shape[:2])], dim=1)
        return torch.cat([masked.text, cells], dim=1), padding


class AttentionFusion(nn.Module):
    """ICMLM_att-fc: masked tokens attend over the image cells; the result is classified.

    We do not know the paper's sizes and number of layers and chose the config's defaults, as well
    as one attention head, the masked token's vector as the query without a projection, and GELU.
    The query itself is not passed on: the text decides only where to look.

    Args:
        visual_feature_size: channels of the image grid.
        text_size: width of a token's vector, and of the attention.
        vocab_size: tokens in the vocabulary.
        num_layers: hidden layers of the classifier.
        feedforward_size: width of a hidden layer.
        dropout: after each hidden layer.
    """

    def __init__(
        self,
        visual_feature_size: int,
        text_size: int,
        vocab_size: int,
        num_layers: int,
        feedforward_size: int,
        dropout: float,
    ):
        super().__init__()
        self.visual_projection = _visual_projection(visual_feature_size, text_size)
        sizes = [text_size] + [feedforward_size] * num_layers
        hidden = [
            nn.Sequential(nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout))
            for before, after in zip(sizes, sizes[1:], strict=False)
        ]
        self.hidden = nn.Sequential(*hidden, nn.Linear(sizes[-1], text_size))
        self.norm = nn.LayerNorm(text_size)
        self.output = nn.Linear(text_size, vocab_size)

    def forward(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return the logits of the masked tokens, as TransformerFusion does."""
        cells, weights = self._attend(visual_grid, masked)
        # shape: (targets, text_size)
        found = (weights.unsqueeze(1) @ cells).squeeze(1)
        return self.output(self.norm(self.hidden(found)))

    def attention(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return each masked token's attention (targets, height, width), with sum 1."""
        _, weights = self._attend(visual_grid, masked)
        return weights.unflatten(1, visual_grid.shape[2:])

    def _attend(self, visual_grid: Tensor, masked: Masked) -> tuple[Tensor, Tensor]:
        """Return keys (targets, cells, text_size), also the values, and their attention weights."""
        queries = masked.text[masked.captions, masked.positions]
        images = masked.images[masked.captions]
        cells = self.visual_projection(_cells(visual_grid))[images]
        scores = (cells @ queries.unsqueeze(2)).squeeze(2) / queries.shape[1] ** 0.5
        return cells, scores.softmax(dim=1)


FusionHead = TransformerFusion | AttentionFusion


def build_fusion_head(
    head: str,
    *,
    visual_feature_size: int,
    text_size: int,
    vocab_size: int,
    num_layers: int,
    attention_heads: int,
    feedforward_size: int,
    dropout: float,
) -> FusionHead:
    """Build the head of MODEL.ICMLM.HEAD, "tfm" or "att_fc"; the latter has one attention head.

    Raises:
        UserError: the name is unknown, or MODEL.ICMLM.ATTENTION_HEADS does not divide `text_size`.
    """
    sizes = (visual_feature_size, text_size, vocab_size, num_layers)
    if head == "tfm":
        check_heads("MODEL.ICMLM.ATTENTION_HEADS", attention_heads, text_size)
        return TransformerFusion(*sizes, attention_heads, feedforward_size, dropout)
    if head == "att_fc":
        return AttentionFusion(*sizes, feedforward_size, dropout)
    raise UserError(f'MODEL.ICMLM.HEAD is {head!r}; expected "tfm" or "att_fc".')


def _visual_projection(visual_feature_size: int, text_size: int) -> nn.Module:
    linear = nn.Linear(visual_feature_size, text_size)
    return nn.Sequential(OrderedDict(linear=linear, norm=nn.LayerNorm(text_size)))


def _cells(visual_grid: Tensor) -> Tensor:
    """Turn (images, channels, height, width) into (images, cells, channels)."""
    return visual_grid.flatten(2).transpose(1, 2)
