"""The sizes of transformers, as a config gives them."""

from typing import Any

from detectron2.config import CfgNode

from virtex_det.data.vocabulary import vocabulary_size
from virtex_det.errors import UserError


def textual_sizes(cfg: CfgNode) -> dict[str, Any]:
    """Return the arguments that MODEL.TEXTUAL gives a textual head or a text encoder.

    Raises:
        UserError: the attention heads do not divide the width, or the tokenizer cannot be read.
    """
    textual = cfg.MODEL.TEXTUAL
    check_heads("MODEL.TEXTUAL.ATTENTION_HEADS", textual.ATTENTION_HEADS, textual.HIDDEN_SIZE)
    return {
        "vocab_size": vocabulary_size(cfg),
        "hidden_size": textual.HIDDEN_SIZE,
        "num_layers": textual.NUM_LAYERS,
        "attention_heads": textual.ATTENTION_HEADS,
        "feedforward_size": textual.FEEDFORWARD_SIZE,
        "dropout": textual.DROPOUT,
        "norm_first": textual.NORM_FIRST,
        "init_std": textual.INIT_STD,
        "max_length": cfg.INPUT.CAPTION.MAX_LENGTH,
    }


def check_heads(key: str, heads: int, size: int) -> None:
    """Refuse a number of heads that does not divide the width; PyTorch's assertion names neither.

    Args:
        key: config key of the number of heads.
        heads: its value.
        size: width of a token's vector.

    Raises:
        UserError: the number of heads does not divide the width.
    """
    if heads < 1 or size % heads:
        largest = max(number for number in range(1, 17) if size % number == 0)
        raise UserError(
            f"{key} is {heads}, but must divide the width of a token's vector, {size}.\n"
            f"Set {key} to a divisor of {size}, such as {largest}."
        )
