"""Encoders of captions: each token's vector from all tokens of its caption (ICMLM, LocTex)."""

from detectron2.config import CfgNode
from torch import Tensor, nn

from virtex_det.errors import UserError
from virtex_det.modeling.textual.attention_heads import check_heads
from virtex_det.modeling.textual.bert import BertTextEncoder
from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding


class TransformerTextEncoder(nn.Module):
    """A transformer encoder that starts from random weights (LocTex; ICMLM where no BERT is at hand).

    LocTex's sizes are not known for sure; GELU and the normalised sum of word and position embeddings are VirTex's.

    Args:
        vocab_size: tokens in the vocabulary.
        hidden_size: width.
        num_layers: encoder layers.
        attention_heads: heads per attention.
        feedforward_size: width inside each feed-forward block.
        dropout: in embedding, attention and feed-forward blocks.
        norm_first: layer norm before each block and once at the end, rather than after each block.
        init_std: of the normal distribution that weights start from.
        max_length: longest caption, in tokens.
        padding_idx: padding token.

    Attributes:
        output_size: width of a token's vector.
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
        self.embedding = WordAndPositionEmbedding(vocab_size, hidden_size, max_length, dropout, padding_idx)
        layer = nn.TransformerEncoderLayer(
            hidden_size,
            attention_heads,
            dim_feedforward=feedforward_size,
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=norm_first,
        )
        # Nested tensors, a prototype in PyTorch, would be used in evaluation only, with a warning.
        norm = nn.LayerNorm(hidden_size) if norm_first else None
        self.transformer = nn.TransformerEncoder(layer, num_layers, norm, enable_nested_tensor=False)
        self.apply(lambda module: _initialise(module, init_std))

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return a vector for each token.

        Args:
            tokens: (captions, length).
            padding: (captions, length), True where there is no token; by default where the token is padding. Of a
                SentencePiece vocabulary the unknown piece has that id too.

        Returns:
            (captions, length, output_size); of no meaning at padding.
        """
        padding = tokens == self.padding_idx if padding is None else padding
        return self.transformer(self.embedding(tokens), src_key_padding_mask=padding)


TextEncoder = TransformerTextEncoder | BertTextEncoder


def build_text_encoder(cfg: CfgNode) -> TextEncoder:
    """Build what MODEL.TEXT_ENCODER describes: a pretrained BERT where it names one, else a transformer at random.

    Raises:
        UserError: BERT cannot be read, or knows another vocabulary or shorter captions than the config has; or the
            transformer's heads do not divide its width.
    """
    options = cfg.MODEL.TEXT_ENCODER
    if options.WEIGHTS:
        encoder = BertTextEncoder(options.WEIGHTS, frozen=options.FREEZE)
        _check_fits(cfg, encoder)
        return encoder
    check_heads("MODEL.TEXT_ENCODER.ATTENTION_HEADS", options.ATTENTION_HEADS, options.HIDDEN_SIZE)
    return TransformerTextEncoder(
        vocab_size=cfg.MODEL.TEXTUAL.VOCAB_SIZE,
        hidden_size=options.HIDDEN_SIZE,
        num_layers=options.NUM_LAYERS,
        attention_heads=options.ATTENTION_HEADS,
        feedforward_size=options.FEEDFORWARD_SIZE,
        dropout=options.DROPOUT,
        norm_first=options.NORM_FIRST,
        init_std=options.INIT_STD,
        max_length=cfg.INPUT.CAPTION.MAX_LENGTH,
    )


def _check_fits(cfg: CfgNode, encoder: BertTextEncoder) -> None:
    if encoder.vocab_size != cfg.MODEL.TEXTUAL.VOCAB_SIZE:
        raise UserError(
            f"The BERT {encoder.source} knows {encoder.vocab_size} tokens, and MODEL.TEXTUAL.VOCAB_SIZE is "
            f"{cfg.MODEL.TEXTUAL.VOCAB_SIZE}.\nA BERT reads its own vocabulary: set INPUT.CAPTION.TOKENIZER "
            f"{encoder.source} MODEL.TEXTUAL.VOCAB_SIZE {encoder.vocab_size}."
        )
    if encoder.max_length < cfg.INPUT.CAPTION.MAX_LENGTH:
        raise UserError(
            f"The BERT {encoder.source} reads at most {encoder.max_length} tokens; set INPUT.CAPTION.MAX_LENGTH to "
            f"that or less, instead of {cfg.INPUT.CAPTION.MAX_LENGTH}."
        )


def _initialise(module: nn.Module, std: float) -> None:
    """Draw weights from a normal distribution as BERT does; biases and norms keep PyTorch's start."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=std)
    if isinstance(module, WordAndPositionEmbedding):
        nn.init.zeros_(module.words.weight[module.padding_idx])
