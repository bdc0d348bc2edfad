"""The textual head: a transformer decoder that reads the image grid."""

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from virtex_det.modeling.textual.attention_heads import check_heads
from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding

BERT_STD = 0.02


class TransformerDecoderTextualHead(nn.Module):
    """Transformer decoder over projected image features; word embedding and output share weights (VirTex, sec. 3).

    The three steps are separate for the caller's economy: one projection serves both caption directions, and the
    vocabulary, the widest layer, is needed only at positions that have a target.

    Args:
        visual_feature_size: channels of the image grid.
        vocab_size: tokens in the vocabulary.
        hidden_size: width of the decoder.
        num_layers: decoder layers.
        attention_heads: heads per attention.
        feedforward_size: width inside each feed-forward block.
        dropout: in embedding, attention and feed-forward blocks.
        norm_first: layer norm before each block and once at the end, rather than after each block.
        init_std: of the normal distribution that weights start from.
        max_length: longest caption, in tokens.
        padding_idx: padding token.
    """

    def __init__(
        self,
        visual_feature_size: int,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        attention_heads: int,
        feedforward_size: int,
        dropout: float = 0.1,
        norm_first: bool = False,
        init_std: float = BERT_STD,
        max_length: int = 30,
        padding_idx: int = 0,
    ):
        super().__init__()
        self.padding_idx = padding_idx
        self.visual_projection = nn.Linear(visual_feature_size, hidden_size)
        self.embedding = WordAndPositionEmbedding(vocab_size, hidden_size, max_length, dropout, padding_idx)
        layer = nn.TransformerDecoderLayer(
            hidden_size,
            attention_heads,
            dim_feedforward=feedforward_size,
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=norm_first,
        )
        self.transformer = nn.TransformerDecoder(layer, num_layers, nn.LayerNorm(hidden_size) if norm_first else None)
        self.output = nn.Linear(hidden_size, vocab_size)
        self.apply(lambda module: _initialise(module, init_std))
        self.output.weight = self.embedding.words.weight

    def project(self, visual_grid: Tensor) -> Tensor:
        """Turn a grid (images, channels, height, width) into the decoder's memory (images, cells, hidden_size)."""
        return self.visual_projection(visual_grid.flatten(2).transpose(1, 2))

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Return a feature for each token, from the tokens up to it and the image; `output` makes it logits.

        Padding may only follow a caption: then no feature of a real token depends on it, and attention needs no mask
        but the causal one.

        Args:
            tokens: (captions, length), padded on the right.
            memory: (captions, cells, hidden_size), from `project`.

        Returns:
            (captions, length, hidden_size).
        """
        future = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        return self.transformer(self.embedding(tokens), memory, tgt_mask=future, tgt_is_causal=True)

    def see_all(self, tokens: Tensor, lengths: Tensor, memory: Tensor) -> Tensor:
        """Return a feature for each token, from all tokens of its caption and the image: for masked language modelling.

        Args:
            tokens: (captions, length), padded on the right.
            lengths: (captions,), what lies beyond is padding; an unknown token within a caption has the same id.
            memory: (captions, cells, hidden_size), from `project`.

        Returns:
            (captions, length, hidden_size); of no meaning at padding.
        """
        padding = torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
        return self.transformer(self.embedding(tokens), memory, tgt_key_padding_mask=padding)


def build_textual_head(cfg: CfgNode, visual_feature_size: int) -> TransformerDecoderTextualHead:
    """Build the head that MODEL.TEXTUAL describes, for an image grid of so many channels.

    Raises:
        UserError: its attention heads do not divide its width.
    """
    textual = cfg.MODEL.TEXTUAL
    check_heads("MODEL.TEXTUAL.ATTENTION_HEADS", textual.ATTENTION_HEADS, textual.HIDDEN_SIZE)
    return TransformerDecoderTextualHead(
        visual_feature_size=visual_feature_size,
        vocab_size=textual.VOCAB_SIZE,
        hidden_size=textual.HIDDEN_SIZE,
        num_layers=textual.NUM_LAYERS,
        attention_heads=textual.ATTENTION_HEADS,
        feedforward_size=textual.FEEDFORWARD_SIZE,
        dropout=textual.DROPOUT,
        norm_first=textual.NORM_FIRST,
        init_std=textual.INIT_STD,
        max_length=cfg.INPUT.CAPTION.MAX_LENGTH,
    )


def _initialise(module: nn.Module, std: float) -> None:
    """Draw weights from a normal distribution as BERT does; biases and norms keep PyTorch's start.

    Queries and keys take no more than BERT's deviation: attention then begins as a plain average, which is what an
    untrained backbone learns from soonest, and sharpens as it learns.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=std)
        nn.init.normal_(module.in_proj_weight[: 2 * module.embed_dim], std=min(std, BERT_STD))
    if isinstance(module, WordAndPositionEmbedding):
        nn.init.zeros_(module.words.weight[module.padding_idx])
