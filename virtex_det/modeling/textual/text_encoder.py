"""Text encoders: a vector for each token from all tokens of its caption (ICMLM, LocTex)."""

from detectron2.config import CfgNode
from torch import Tensor, nn

from virtex_det.data.vocabulary import vocabulary_size
from virtex_det.errors import UserError
from virtex_det.modeling.textual.bert import BertTextEncoder
from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding
from virtex_det.modeling.textual.sizes import textual_sizes


class TransformerTextEncoder(nn.Module):
    """A transformer encoder with random initial weights (for LocTex, and for ICMLM without a BERT).

    We are not sure of LocTex's sizes. GELU and the normalised sum of word and position embeddings
    are VirTex's.

    Args:
        vocab_size: tokens in the vocabulary.
        hidden_size: width of the encoder.
        num_layers: encoder layers.
        attention_heads: heads per attention.
        feedforward_size: width inside each feed-forward block.
        dropout: in embedding, attention and feed-forward blocks.
        norm_first: layer norm before each block and once at the end, rather than after each block.
        init_std: standard deviation of the normal distribution of initial weights.
        max_length: longest caption, in tokens.
        padding_idx: padding token.

    Attributes:
        output_size: width of a token's vector.

    Example:
        >>> import torch
        >>> encoder = TransformerTextEncoder(20, 16, 1, attention_heads=2, feedforward_size=32)
        >>> encoder(torch.tensor([[1, 7, 8, 2]])).shape
        torch.Size([1, 4, 16])
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        attention_heads: int,
        feedforward_size: int,
        dropout: float = 0.1,
        norm_first: bool = False,
        init_std: float = 0.02,
        max_length: int = 30,
        padding_idx: int = 0,
    ):
        super().__init__()
        self.padding_idx = padding_idx
        self.output_size = hidden_size
        self.embedding = WordAndPositionEmbedding(
            vocab_size, hidden_size, max_length, dropout, padding_idx
        )
        layer = nn.TransformerEncoderLayer(
            hidden_size,
            attention_heads,
            dim_feedforward=feedforward_size,
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=norm_first,
        )
        # PyTorch would use nested tensors, a prototype, in evaluation only and with a warning.
        norm = nn.LayerNorm(hidden_size) if norm_first else None
        self.transformer = nn.TransformerEncoder(
            layer, num_layers, norm, enable_nested_tensor=False
        )
        self.apply(lambda module: _initialise(module, init_std))

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return a vector for each token.

        Args:
            tokens: (captions, length).
            padding: (captions, length), True at padding; by default where the token is
                `padding_idx`, which in a SentencePiece vocabulary is also the unknown token.

        Returns:
            (captions, length, output_size); meaningless at padding.
        """
        padding = tokens == self.padding_idx if padding is None else padding
        return self.transformer(self.embedding(tokens), src_key_padding_mask=padding)


TextEncoder = TransformerTextEncoder | BertTextEncoder


def build_text_encoder(cfg: CfgNode) -> TextEncoder:
    """Build the BERT of MODEL.TEXT_ENCODER, else a random transformer of MODEL.TEXTUAL's sizes.

    Raises:
        UserError: the BERT cannot be read, or its vocabulary or its longest caption contradicts the
            config; the transformer's heads do not divide its width; or the tokenizer cannot be
            read.
    """
    bert = cfg.MODEL.TEXT_ENCODER
    if bert.WEIGHTS:
        encoder = BertTextEncoder(bert.WEIGHTS, frozen=bert.FREEZE)
        _check_fits(cfg, encoder)
        return encoder
    return TransformerTextEncoder(**textual_sizes(cfg))


def _check_fits(cfg: CfgNode, encoder: BertTextEncoder) -> None:
    pieces = vocabulary_size(cfg)
    if encoder.vocab_size != pieces:
        raise UserError(
            f"The BERT {encoder.source} has {encoder.vocab_size} tokens, but the vocabulary of the "
            f"captions, INPUT.CAPTION.TOKENIZER {cfg.INPUT.CAPTION.TOKENIZER!r}, has {pieces}.\n"
            f"A BERT needs its own vocabulary: set INPUT.CAPTION.TOKENIZER {encoder.source}."
        )
    if encoder.max_length < cfg.INPUT.CAPTION.MAX_LENGTH:
        raise UserError(
            f"The BERT {encoder.source} reads at most {encoder.max_length} tokens; set "
            f"INPUT.CAPTION.MAX_LENGTH to that or less, instead of {cfg.INPUT.CAPTION.MAX_LENGTH}."
        )


def _initialise(module: nn.Module, std: float) -> None:
    """Draw weights from a normal distribution as BERT does, not those of biases and norms."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=std)
    if isinstance(module, WordAndPositionEmbedding):
        nn.init.zeros_(module.words.weight[module.padding_idx])
