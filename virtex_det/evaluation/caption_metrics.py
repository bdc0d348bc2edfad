"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions, as pycocoevalcap computes them."""

import contextlib
import functools
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeVar

from virtex_det import signals
from virtex_det.data.tokenizer import strip_accents

logger = logging.getLogger(__name__)

# Tokenised captions by image: tokens are separated by single spaces.
Captions = dict[Any, list[str]]
T = TypeVar("T")

# A character of a script without spaces between words, with its combining marks.
_WITHOUT_SPACES = re.compile(
    "["
    # Japanese, Chinese
    "\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6"  # Thai, Lao
    "\u1000-\u102a\u1780-\u17b3"  # Burmese, Khmer
    "][\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3]*"
)

# What pycocoevalcap raises when Java fails, or returns something unexpected.
_FAILURES = (OSError, ValueError, subprocess.SubprocessError)

# SPICE's serialiser needs classes that Java 17 closed; Java 8 ignores this variable.
_SPICE_OPENS = " ".join(
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "math", "util", "util.concurrent", "net", "text")
)


def caption_metrics(
    predictions: Mapping[Any, str], references: Mapping[Any, Sequence[str]]
) -> dict[str, float]:
    """Compare captions with references; numbers are pycocoevalcap's ``COCOEvalCap``, times 100.

    A metric that cannot be computed here is left out, and the log says what is missing. Nothing is
    downloaded.

    Accents are removed from both sides, because vocabularies remove them from what models write.
    Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are compared
    character by character. METEOR and SPICE are made for English.

    Args:
        predictions: one caption per image id.
        references: for each of these image ids one or more captions.

    Returns:
        "BLEU_1" to "BLEU_4", "METEOR", "ROUGE_L", "CIDEr" and "SPICE".
    """
    if missing := missing_tools():
        _say_once(f"No caption metrics: {missing}")
        return {}
    with _java_that_ends_with_this_process():
        return _metrics(predictions, references)


def _metrics(
    predictions: Mapping[Any, str], references: Mapping[Any, Sequence[str]]
) -> dict[str, float]:
    tokenised = _attempt(
        "caption metrics",
        lambda: (_tokenise(references), _tokenise({i: [text] for i, text in predictions.items()})),
    )
    if tokenised is None:
        return {}
    if any(_WITHOUT_SPACES.search(text) for texts in references.values() for text in texts):
        _say_once(
            "Some captions are in a script without spaces between words: each of its characters "
            "counts as a word"
        )
    metrics: dict[str, float] = {}
    for names, compute in METRICS.items():
        if compute is _spice and _lacks_spice_models():
            continue
        values = _attempt(", ".join(names), functools.partial(compute, *tokenised))
        if values is not None:
            metrics |= {name: 100 * float(value) for name, value in zip(names, values, strict=True)}
    return metrics


def missing_tools() -> str:
    """Return what caption metrics lack here and how to install it; "" if nothing is missing."""
    if find_spec("pycocoevalcap") is None:
        return (
            "pycocoevalcap is not installed. Install the pretraining extra: "
            'pip install "virtex_det[pretrain]"'
        )
    if shutil.which("java") is None:
        return (
            "their tokenizer, METEOR and SPICE run on Java, but there is no java on the PATH.\n"
            "Install a runtime (Debian and Ubuntu: apt install default-jre-headless), and "
            "evaluate again."
        )
    return ""


def missing_spice_models() -> list[Path]:
    """Return SPICE's missing parser files, which are not part of pycocoevalcap."""
    from pycocoevalcap.spice.get_stanford_models import JAR, SPICEDIR, SPICELIB

    files = [Path(SPICEDIR) / SPICELIB / f"{JAR}{part}.jar" for part in ("", "-models")]
    return [file for file in files if not file.exists()]


def _lacks_spice_models() -> bool:
    missing = missing_spice_models()
    if missing:
        _say_once(
            f"No SPICE: its parser's models are missing: {' and '.join(map(str, missing))}\n"
            "To download them from Stanford: python -m pycocoevalcap.spice.get_stanford_models\n"
            "On a machine without a network, copy both files from a machine that has them."
        )
    return bool(missing)


def _tokenise(captions: Mapping[Any, Sequence[str]]) -> Captions:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = {}
    for image, texts in captions.items():
        lines[image] = [{"caption": _one_line(text)} for text in texts]
    tokenised = PTBTokenizer().tokenize(lines)
    if [len(texts) for texts in lines.values()] != [len(texts) for texts in tokenised.values()]:
        raise ValueError("the tokenizer did not return a line for each caption")
    return tokenised


def _one_line(text: str) -> str:
    """Put a caption on one line: Java ends lines at more characters than pycocoevalcap removes.

    Text that is not ASCII loses its accents, and gets spaces if its script has none.
    """
    if not text.isascii():
        plain = unicodedata.normalize(
            "NFC", strip_accents(text.encode("utf-8", "replace").decode())
        )
        text = _WITHOUT_SPACES.sub(r" \g<0> ", plain)
    return " ".join(text.split())


def _bleu(references: Captions, predictions: Captions) -> Sequence[float]:
    from pycocoevalcap.bleu.bleu import Bleu

    return Bleu(4).compute_score(references, predictions, verbose=0)[0]


def _meteor(references: Captions, predictions: Captions) -> Sequence[float]:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        return [scorer.compute_score(references, predictions)[0]]
    finally:
        scorer.meteor_p.kill()
        with contextlib.suppress(OSError):
            scorer.meteor_p.communicate()
        if scorer.lock.locked():  # after an error; the scorer's destructor would wait for it
            scorer.lock.release()


def _rouge(references: Captions, predictions: Captions) -> Sequence[float]:
    from pycocoevalcap.rouge.rouge import Rouge

    return [Rouge().compute_score(references, predictions)[0]]


def _cider(references: Captions, predictions: Captions) -> Sequence[float]:
    from pycocoevalcap.cider.cider import Cider

    return [Cider().compute_score(references, predictions)[0]]


def _spice(references: Captions, predictions: Captions) -> Sequence[float]:
    from pycocoevalcap.spice.spice import Spice

    with _environment(
        "JDK_JAVA_OPTIONS", f"{os.environ.get('JDK_JAVA_OPTIONS', '')} {_SPICE_OPENS}"
    ):
        return [Spice().compute_score(references, predictions)[0]]


METRICS: dict[tuple[str, ...], Callable[[Captions, Captions], Sequence[float]]] = {
    ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4"): _bleu,
    ("METEOR",): _meteor,
    ("ROUGE_L",): _rouge,
    ("CIDEr",): _cider,
    ("SPICE",): _spice,
}


def _attempt(what: str, compute: Callable[[], T]) -> T | None:
    """Return the result of ``compute``; if it fails, warn with Java's output and return None."""
    with tempfile.TemporaryFile() as output:
        try:
            with _output_to(output):
                return compute()
        except _FAILURES as error:
            output.seek(0)
            tail = "\n".join(output.read().decode(errors="replace").splitlines()[-8:])
            logger.warning("No %s: %s: %s\n%s", what, type(error).__name__, error, tail)
            return None


@contextlib.contextmanager
def _output_to(file: IO[bytes]) -> Iterator[None]:
    """Redirect the output of this process and its children to a file: Java prints a lot."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for stream in streams:
            stream.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


@contextlib.contextmanager
def _java_that_ends_with_this_process() -> Iterator[None]:
    """Put a ``java`` on the PATH that the kernel ends together with this process.

    Otherwise SPICE would run on for minutes after a kill. pycocoevalcap takes the first ``java`` on
    the PATH.
    """
    java = shutil.which("java")
    program = (
        "import os, runpy, sys; "
        f"runpy.run_path({signals.__file__!r})['end_with_parent'](parent={os.getpid()}); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = shlex.join([sys.executable, "-I", "-S", "-c", program, str(java)])
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "java"
        stand_in.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        stand_in.chmod(0o755)
        with _environment("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}"):
            yield


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@functools.cache
def _say_once(message: str) -> None:
    """Warn; evaluations during training need not repeat it."""
    logger.warning(message)
