"""A BERT of a few kilobytes, as transformers writes one to disk."""

from collections.abc import Sequence
from pathlib import Path

import torch

# The special tokens have ids like BERT's: padding is 0, the others lie behind unused pieces.
SPECIAL = ("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "a",
    "cat",
    "##fish",
    "dog",
    "red",
    "left",
    "right",
    "of",
    "on",
    "the",
    "sits",
    "star",
    "cafe",
    ",",
    ".",
    "-",
)


def make_bert(folder: Path, words: Sequence[str] = WORDS, seed: int = 0, **sizes: int) -> Path:
    """Write vocab.txt, config.json and model.safetensors of an untrained BERT."""
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    sizes = small | {"max_position_embeddings": 32} | sizes
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(SPECIAL) + len(words), **sizes)
    BertModel(config).save_pretrained(folder)
    return folder
