"""The vocabulary of a config: how many tokens it has, and whether it has the captions' words."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from virtex_det.config import with_options
from virtex_det.config.roles import reads_tokenizer
from virtex_det.data.tokenizers import Tokenizer, read_tokenizer
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

_LOOKED_AT = 300  # captions
_MANY, _NEARLY_ALL = 0.1, 0.9  # shares of unknown words


def vocabulary_size(cfg: CfgNode) -> int:
    """Return how many tokens the tokenizer of a config has, the special ones included.

    If the tokenizer's file is not here and MODEL.TEXTUAL.VOCAB_SIZE is set, that is the number: a
    model can then be built without the file, to inspect it.

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
        UserError: MODEL.TEXTUAL.VOCAB_SIZE is another size.
    """
    stated = cfg.MODEL.TEXTUAL.VOCAB_SIZE
    if stated not in (0, found):
        raise UserError(
            f"MODEL.TEXTUAL.VOCAB_SIZE is {stated}, but the tokenizer INPUT.CAPTION.TOKENIZER "
            f"{cfg.INPUT.CAPTION.TOKENIZER} has {found} tokens.\n"
            "Leave MODEL.TEXTUAL.VOCAB_SIZE out, which takes the tokenizer's size, or name another "
            "tokenizer."
        )
    return found


def with_vocabulary_size(cfg: CfgNode) -> CfgNode:
    """Return a config whose MODEL.TEXTUAL.VOCAB_SIZE is its tokenizer's size, as runs keep it.

    Args:
        cfg: is not changed. It is returned if nothing in it reads the tokenizer.

    Raises:
        UserError: as ``vocabulary_size``.
    """
    if not reads_tokenizer(cfg):
        return cfg
    return with_options(cfg, ["MODEL.TEXTUAL.VOCAB_SIZE", str(vocabulary_size(cfg))])


def check_known_words(tokenizer: Tokenizer, dicts: Sequence[Mapping[str, Any]], name: str) -> None:
    """Refuse captions whose words the tokenizer hardly knows, such as those of another language.

    A tenth of unknown words is a warning. A sample of captions is looked at, at even distances.

    Args:
        tokenizer: tokenizer of the run.
        dicts: dataset dicts; those without captions are left out.
        name: name of the dataset in messages.

    Raises:
        UserError: nearly all words are unknown.
    """
    captioned = [entry["captions"][0] for entry in dicts if entry.get("captions")]
    step = max(len(captioned) // _LOOKED_AT, 1)
    words = [word for caption in captioned[::step] for word in str(caption).split()]
    unknown = [word for word in words if tokenizer.unk_id in tokenizer.encode(word)]
    share = len(unknown) / max(len(words), 1)
    if share <= _MANY:
        return
    found = (
        f"data set {name}: the tokenizer INPUT.CAPTION.TOKENIZER does not know {share:.0%} of the "
        f"words in captions, e.g. {unknown[0]!r:.80}."
    )
    if share > _NEARLY_ALL:
        raise UserError(
            f"{found}\n"
            "Build a vocabulary from these captions with tools/build_vocabulary.py, or set "
            "INPUT.CAPTION.TOKENIZER to the one that was built from them."
        )
    logger.warning(found)
