"""Networks that read or write captions."""

from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding
from virtex_det.modeling.textual.linear_head import LinearTextualHead
from virtex_det.modeling.textual.transformer_head import (
    TransformerDecoderTextualHead,
    build_textual_head,
)

__all__ = [
    "LinearTextualHead",
    "TransformerDecoderTextualHead",
    "WordAndPositionEmbedding",
    "build_textual_head",
]
