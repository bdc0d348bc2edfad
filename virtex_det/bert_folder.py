"""The folder of a pretrained BERT: a local one, or one from the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from virtex_det.errors import UserError

VOCABULARY = ("vocab.txt", "tokenizer.json")
CONFIG = ("config.json",)
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")

# The hub has BERT for four frameworks; these are the files of one of them, without pickles.
_WANTED = [
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "*.safetensors",
    "*.index.json",
]


def bert_folder(source: str | Path, *required: Sequence[str]) -> Path:
    """Return a local folder with the required files of a pretrained BERT.

    transformers would read a folder without a vocabulary as a vocabulary of five words, and one
    without config.json as BERT-base.

    Args:
        source: a folder, or a name on the hub such as "google-bert/bert-base-uncased".
        required: the alternative names of each required file.

    Raises:
        UserError: there is no such folder or hub name, or a file is missing.
    """
    folder = Path(source) if source and Path(source).is_dir() else _from_hub(str(source))
    missing = [
        " or ".join(names)
        for names in required
        if not any((folder / name).is_file() for name in names)
    ]
    if missing:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise UserError(
            f"The BERT folder {folder} is incomplete: it has no {', no '.join(missing)}.\n"
            f"It has: {there}\n"
            f"A complete one has {', '.join((VOCABULARY[0], CONFIG[0], WEIGHTS[0]))}."
        )
    return folder


def needs_transformers(error: ImportError) -> UserError:
    """Return the error that says how to install transformers, which only a BERT needs."""
    return UserError(
        f"A pretrained BERT needs transformers, which cannot be imported here: {error}\n"
        'Install the pretraining extra: pip install "virtex_det[pretrain]"'
    )


def _from_hub(name: str) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise needs_transformers(error) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_WANTED))
    except (OSError, HFValidationError) as error:  # network errors are OSErrors, too
        raise UserError(
            f"There is no folder {name!r}, and no BERT of this name on the hub: "
            f"{str(error).splitlines()[0]}\n"
            "Give the folder of a BERT, with vocab.txt, config.json and model.safetensors, or a "
            "name on the hub such as google-bert/bert-base-uncased (on a machine without a "
            "network, copy the folder there)."
        ) from error
