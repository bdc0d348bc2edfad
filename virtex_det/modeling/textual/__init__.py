"""Networks that read or write captions."""

from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding
from virtex_det.modeling.textual.transformer_head import TransformerDecoderTextualHead

__all__ = ["TransformerDecoderTextualHead", "WordAndPositionEmbedding"]
