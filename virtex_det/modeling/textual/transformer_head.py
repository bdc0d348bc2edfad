"""The textual head: a transformer decoder that reads the image grid."""

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding
from virtex_det.modeling.textual.sizes import textual_sizes

BERT_STD = 0.02


class TransformerDecoderTextualHead(nn.Module):
    """Transformer decoder over projected image features (VirTex, sec. 3).

    The word embedding and the output layer share weights.

    The steps `project`, `forward` and `output` are separate to save work: one projection serves
    both caption directions, and the output layer, the widest, is needed only at positions with a
    target.

    Args:
        visual_feature_size: channels of the image grid.
        vocab_size: tokens in the vocabulary.
        hidden_size: width of the decoder.
        num_layers: decoder layers.
        attention_heads: heads per attention.
        feedforward_size: width inside each feed-forward block.
        dropout: in embedding, attention and feed-forward blocks.
        norm_first: layer norm before each block and once at the end, rather than after each block.
        init_std: standard deviation of the normal distribution of initial weights.
        max_length: longest caption, in tokens.
        padding_idx: padding token.
        mask_idx: the token at every position of `in_parallel`.

    Example:
        >>> import torch
        >>> head = TransformerDecoderTextualHead(512, 20, 16, 1, 2, feedforward_size=32)
        >>> memory = head.project(torch.zeros(1, 512, 7, 7))
        >>> features = head(torch.tensor([[1, 7, 8]]), memory)
        >>> head.output(features).shape  # logits of the next token
        torch.Size([1, 3, 20])
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
        mask_idx: int = 3,
    ):
        super().__init__()
        self.padding_idx = padding_idx
        self.mask_idx = mask_idx
        self.visual_projection = nn.Linear(visual_feature_size, hidden_size)
        self.embedding = WordAndPositionEmbedding(
            vocab_size, hidden_size, max_length, dropout, padding_idx
        )
        layer = nn.TransformerDecoderLayer(
            hidden_size,
            attention_heads,
            dim_feedforward=feedforward_size,
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=norm_first,
        )
        norm = nn.LayerNorm(hidden_size) if norm_first else None
        self.transformer = nn.TransformerDecoder(layer, num_layers, norm)
        self.output = nn.Linear(hidden_size, vocab_size)
        self.apply(lambda module: _initialise(module, init_std))
        self.output.weight = self.embedding.words.weight

    def project(self, visual_grid: Tensor) -> Tensor:
        """Map a grid (images, channels, height, width) to memory (images, cells, hidden_size)."""
        return self.visual_projection(visual_grid.flatten(2).transpose(1, 2))

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Return a feature per token from the image and the tokens up to it; `output` makes logits.

        Padding must follow the caption: then no feature of a real token depends on it, and the
        causal mask is the only one that attention needs.

        Args:
            tokens: (captions, length), padded on the right.
            memory: (captions, cells, hidden_size), from `project`.

        Returns:
            (captions, length, hidden_size).
        """
        future = nn.Transformer.generate_square_subsequent_mask(
            tokens.shape[1], device=tokens.device
        )
        return self.transformer(self.embedding(tokens), memory, tgt_mask=future, tgt_is_causal=True)

    def see_all(self, tokens: Tensor, padding: Tensor, memory: Tensor) -> Tensor:
        """Return a feature per token from the image and all tokens: for masked language modelling.

        Args:
            tokens: (captions, length), padded on the right.
            padding: (captions, length), True at padding; the unknown token has the padding's id.
            memory: (captions, cells, hidden_size), from `project`.

        Returns:
            (captions, length, hidden_size); meaningless at padding.
        """
        return self.transformer(self.embedding(tokens), memory, tgt_key_padding_mask=padding)

    def in_parallel(self, memory: Tensor, length: int) -> Tensor:
        """Return a feature per position from the image alone: for parallel prediction (CapPa).

        Every input is the mask token and sees all others. There are always as many as the longest
        caption needs, so the number of words has to be predicted, too.

        Args:
            memory: (captions, cells, hidden_size), from `project`.
            length: number of first positions to return.

        Returns:
            (captions, length, hidden_size); `output` makes logits of the token that follows each.
        """
        inputs = self.embedding.positions.num_embeddings - 1  # no token follows the last one
        masks = torch.full((len(memory), inputs), self.mask_idx, device=memory.device)
        return self.transformer(self.embedding(masks), memory)[:, :length]


def build_textual_head(cfg: CfgNode, visual_feature_size: int) -> TransformerDecoderTextualHead:
    """Build the head of MODEL.TEXTUAL for an image grid with `visual_feature_size` channels.

    Raises:
        UserError: the attention heads do not divide the width, or the tokenizer cannot be read.
    """
    return TransformerDecoderTextualHead(visual_feature_size, **textual_sizes(cfg))


def _initialise(module: nn.Module, std: float) -> None:
    """Draw weights from a normal distribution as BERT does; biases and norms keep PyTorch's init.

    The standard deviation of queries and keys is at most BERT's. Attention then starts as a plain
    average, from which an untrained backbone learns soonest, and sharpens during training.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=std)
        nn.init.normal_(module.in_proj_weight[: 2 * module.embed_dim], std=min(std, BERT_STD))
    if isinstance(module, WordAndPositionEmbedding):
        nn.init.zeros_(module.words.weight[module.padding_idx])
