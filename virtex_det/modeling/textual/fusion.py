"""Fusion heads of ICMLM: predict the masked tokens of captions from the image grid and the captions' token vectors."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.errors import UserError
from virtex_det.modeling.textual.attention_heads import check_heads


class Masked(NamedTuple):
    """Captions as a text encoder sees them, and which of their tokens are to be predicted."""

    text: Tensor  # (captions, length, text size)
    padding: Tensor  # (captions, length), True where there is no token
    captions: Tensor  # (targets,) int64, index of the caption
    positions: Tensor  # (targets,) int64, index of the token


class TransformerFusion(nn.Module):
    """ICMLM_tfm: a transformer encoder over image cells and tokens, whose output at a masked token is classified.

    The paper's sizes are not known to us; the defaults of the config are ours. So are: GELU, layer norm after each
    block, cells without a position embedding (a ResNet's features tell where they are), PyTorch's initial weights, and
    a classifier with weights of its own.

    Args:
        visual_feature_size: channels of the image grid.
        text_size: width of a token's vector, and of the transformer.
        vocab_size: tokens in the vocabulary.
        num_layers: encoder layers.
        attention_heads: heads per attention.
        feedforward_size: width inside each feed-forward block.
        dropout: in attention and feed-forward blocks.
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
            text_size, attention_heads, feedforward_size, dropout, activation="gelu", batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.output = nn.Linear(text_size, vocab_size)

    def forward(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return the logits of the masked tokens.

        Args:
            visual_grid: (captions, channels, height, width).
            masked: the captions of these images.

        Returns:
            (targets, vocab_size).
        """
        sequence, padding = self._join(visual_grid, masked)
        features = self.transformer(sequence, src_key_padding_mask=padding)
        return self.output(features[masked.captions, masked.positions])

    def attention(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return how the last layer's attention of each masked token is shared among the cells, mean over heads.

        Returns:
            (targets, height, width), each of sum 1: what goes to tokens is left out.
        """
        sequence, padding = self._join(visual_grid, masked)
        *earlier, last = self.transformer.layers
        for layer in earlier:
            sequence = layer(sequence, src_key_padding_mask=padding)
        query = sequence[masked.captions, masked.positions].unsqueeze(1)
        seen, hidden = sequence[masked.captions], padding[masked.captions]
        _, weights = last.self_attn(query, seen, seen, key_padding_mask=hidden)  # shape: (targets, 1, sequence)
        on_cells = weights[:, 0, masked.text.shape[1] :]
        return F.normalize(on_cells, p=1, dim=1).unflatten(1, visual_grid.shape[2:])

    def _join(self, visual_grid: Tensor, masked: Masked) -> tuple[Tensor, Tensor]:
        """Return tokens and then cells, (captions, sequence, text_size), and where there is neither."""
        cells = self.visual_projection(_cells(visual_grid))
        padding = torch.cat([masked.padding, masked.padding.new_zeros(cells.shape[:2])], dim=1)
        return torch.cat([masked.text, cells], dim=1), padding


class AttentionFusion(nn.Module):
    """ICMLM_att-fc: a masked token's vector attends over the image cells; what it finds there is classified.

    The sizes and the number of layers are not known to us, and ours, as are: one attention head, the masked token's
    vector as it is for a query, and GELU. The query is not handed on: what the text knows decides where to look, and
    nothing else.

    Args:
        visual_feature_size: channels of the image grid.
        text_size: width of a token's vector, and of the attention.
        vocab_size: tokens in the vocabulary.
        num_layers: hidden layers.
        feedforward_size: their width.
        dropout: after each of them.
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
        found = (weights.unsqueeze(1) @ cells).squeeze(1)  # shape: (targets, text_size)
        return self.output(self.norm(self.hidden(found)))

    def attention(self, visual_grid: Tensor, masked: Masked) -> Tensor:
        """Return each masked token's attention (targets, height, width), of sum 1."""
        _, weights = self._attend(visual_grid, masked)
        return weights.unflatten(1, visual_grid.shape[2:])

    def _attend(self, visual_grid: Tensor, masked: Masked) -> tuple[Tensor, Tensor]:
        """Return keys (targets, cells, text_size), which are values too, and each query's weights of them."""
        queries = masked.text[masked.captions, masked.positions]
        cells = self.visual_projection(_cells(visual_grid))[masked.captions]
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
    """Build MODEL.ICMLM.HEAD "tfm" or "att_fc"; the latter has one attention head.

    Raises:
        UserError: it names another one, or MODEL.ICMLM.ATTENTION_HEADS does not divide the width of the text.
    """
    sizes = (visual_feature_size, text_size, vocab_size, num_layers)
    if head == "tfm":
        check_heads("MODEL.ICMLM.ATTENTION_HEADS", attention_heads, text_size)
        return TransformerFusion(*sizes, attention_heads, feedforward_size, dropout)
    if head == "att_fc":
        return AttentionFusion(*sizes, feedforward_size, dropout)
    raise UserError(f'MODEL.ICMLM.HEAD is {head!r}; expected "tfm" or "att_fc".')


def _visual_projection(visual_feature_size: int, text_size: int) -> nn.Module:
    return nn.Sequential(OrderedDict(linear=nn.Linear(visual_feature_size, text_size), norm=nn.LayerNorm(text_size)))


def _cells(visual_grid: Tensor) -> Tensor:
    """Turn (images, channels, height, width) into (images, cells, channels)."""
    return visual_grid.flatten(2).transpose(1, 2)
