"""The folder of a pretrained BERT: a local one, or one that Hugging Face's hub brings."""

from collections.abc import Sequence
from pathlib import Path

from virtex_det.errors import UserError

VOCABULARY = ("vocab.txt", "tokenizer.json")
CONFIG = ("config.json",)
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")

# BERT is on the hub for four frameworks; this is one of them, without pickles.
_WANTED = ["config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.index.json"]


def bert_folder(source: str | Path, *required: Sequence[str]) -> Path:
    """Return a local folder that holds what is required of a pretrained BERT.

    transformers itself takes a folder without vocabulary for a vocabulary of five words, and one without config.json
    for BERT-base.

    Args:
        source: a folder, or a name on the hub such as "google-bert/bert-base-uncased".
        required: for each thing, the names that it may have.

    Raises:
        UserError: no such folder and nothing on the hub, or something is missing there; says what.
    """
    folder = Path(source) if source and Path(source).is_dir() else _from_hub(str(source))
    missing = [" or ".join(names) for names in required if not any((folder / name).is_file() for name in names)]
    if missing:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise UserError(
            f"The BERT folder {folder} is incomplete: it has no {', no '.join(missing)}.\n"
            f"It has: {there}\n"
            f"A complete one has {', '.join((VOCABULARY[0], CONFIG[0], WEIGHTS[0]))}."
        )
    return folder


def needs_transformers(error: ImportError) -> UserError:
    """Return the error that says how to get what reads a BERT: fine-tuning a detector does without it."""
    return UserError(
        f"A pretrained BERT needs transformers, which cannot be imported here: {error}\n"
        'Install the pretraining extra: pip install -e ".[pretrain]"'
    )


def _from_hub(name: str) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise needs_transformers(error) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_WANTED))
    except (OSError, HFValidationError) as error:  # also what the network's errors are
        raise UserError(
            f"There is no folder {name!r}, and the hub gives no BERT of that name: {str(error).splitlines()[0]}\n"
            "Give the folder of a BERT, with vocab.txt, config.json and model.safetensors, or a name on the hub such "
            "as google-bert/bert-base-uncased (a machine without network: bring the folder there)."
        ) from error
