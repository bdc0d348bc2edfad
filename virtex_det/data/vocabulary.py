"""How many tokens the vocabulary of a config has: its tokenizer says."""

from pathlib import Path

from detectron2.config import CfgNode

from virtex_det.config import with_options
from virtex_det.config.roles import reads_tokenizer
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.errors import UserError


def vocabulary_size(cfg: CfgNode) -> int:
    """Return how many tokens the tokenizer of a config has, the special ones included.

    Where MODEL.TEXTUAL.VOCAB_SIZE says it and the tokenizer's file is not here, as for a model that
    is built to be looked at, no file is needed.

    Args:
        cfg: the full config, of a model that reads captions.

    Raises:
        UserError: the tokenizer cannot be read, or has another number of tokens than
            MODEL.TEXTUAL.VOCAB_SIZE says.
    """
    source, stated = cfg.INPUT.CAPTION.TOKENIZER, cfg.MODEL.TEXTUAL.VOCAB_SIZE
    if stated and not (source and Path(source).exists()):
        return stated
    return check_vocabulary_size(cfg, read_tokenizer(source).vocab_size)


def check_vocabulary_size(cfg: CfgNode, found: int) -> int:
    """Return the number of tokens that the tokenizer of a config has.

    Args:
        cfg: the full config.
        found: in the tokenizer.

    Raises:
        UserError: MODEL.TEXTUAL.VOCAB_SIZE says another.
    """
    stated = cfg.MODEL.TEXTUAL.VOCAB_SIZE
    if stated not in (0, found):
        raise UserError(
            f"MODEL.TEXTUAL.VOCAB_SIZE is {stated}, but the tokenizer INPUT.CAPTION.TOKENIZER "
            f"{cfg.INPUT.CAPTION.TOKENIZER} has {found} tokens.\n"
            "Leave MODEL.TEXTUAL.VOCAB_SIZE out, which takes what the tokenizer has; or name the "
            "tokenizer that it is of."
        )
    return found


def with_vocabulary_size(cfg: CfgNode) -> CfgNode:
    """Return a config whose MODEL.TEXTUAL.VOCAB_SIZE is what its tokenizer has, as runs keep it.

    Args:
        cfg: stays as it is. Where no part of it reads the tokenizer, it is returned.

    Raises:
        UserError: as ``vocabulary_size``.
    """
    if not reads_tokenizer(cfg):
        return cfg
    return with_options(cfg, ["MODEL.TEXTUAL.VOCAB_SIZE", str(vocabulary_size(cfg))])
