"""Choose the concepts that ICMLM masks and TP_Postag predicts: frequent words of captions.

They are nouns that the captions of an image agree on; other words are an option.

python tools/build_concepts.py --dataset coco_2017_train_captions \\
    --tokenizer vocab/coco_10k.model --size 5000 --output vocab/coco_concepts_5k.json
"""

import argparse
from collections.abc import Container, Sequence

from virtex_det.cli.parsers import command_parser
from virtex_det.data.concepts import (
    PARTS_OF_SPEECH,
    ConceptSet,
    build_concepts,
    caption_agreement,
)
from virtex_det.data.datasets import load_dataset
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.escaping import say
from virtex_det.files import check_output

SHOWN = 12  # words of each part of speech that are printed


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the concept set that the command line describes."""
    options = _parser().parse_args(arguments)
    check_output(options.output, options.tokenizer)
    tokenizer = read_tokenizer(options.tokenizer)
    by_image = [
        image.get("captions", []) for name in options.dataset for image in load_dataset(name)
    ]
    captions = [caption for of_image in by_image for caption in of_image]
    words = _agreed_words(by_image, options.agreement)
    concepts = build_concepts(captions, tokenizer, options.parts_of_speech, options.size, words)
    concepts.write(options.output)
    say(f"{options.output}: {len(concepts.concepts)} concepts from {len(captions)} captions")
    for part in options.parts_of_speech:
        _print_part(concepts, part)
    if len(concepts.concepts) < options.size:
        say(
            f"warning: only {len(concepts.concepts)} words of the captions can be concepts, fewer "
            f"than --size {options.size}"
        )


def _agreed_words(captions: Sequence[Sequence[str]], least: float) -> Container[str] | None:
    """Return the words of at least this agreement; None for all words."""
    if least <= 0:
        return None
    agreement = caption_agreement(captions)
    if not agreement:
        say(
            "warning: no image has two captions, so words are chosen without their agreement: "
            'frequent words for the layout, such as "top", can be concepts'
        )
        return None
    return {word for word, kappa in agreement.items() if kappa >= least}


def _print_part(concepts: ConceptSet, part: str) -> None:
    found = [concept for concept in concepts.concepts if concept.part_of_speech == part]
    most_frequent = ", ".join(f"{concept.word} {concept.count}" for concept in found[:SHOWN])
    say(f"{part:10} {len(found):6}  {most_frequent}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--dataset", nargs="+", required=True, metavar="NAME", help="datasets with captions"
    )
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="PATH",
        help="tokenizer of the run: a SentencePiece model, or a BERT (folder or hub name)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=5000,
        metavar="K",
        help="largest number of concepts (default: %(default)s)",
    )
    parser.add_argument(
        "--parts-of-speech",
        nargs="+",
        default=["noun"],
        choices=PARTS_OF_SPEECH,
        help="take these words (default: noun, which teaches a detector most)",
    )
    parser.add_argument(
        "--agreement",
        type=float,
        default=0.25,
        metavar="KAPPA",
        help="smallest agreement between captions of an image on whether a word is said, as "
        "Cohen's kappa; 0 takes all words (default: %(default)s, which leaves out COCO's words for "
        'layout, such as "front", "group" and "picture")',
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON file to write")
    return parser
