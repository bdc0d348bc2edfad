"""Make the SentencePiece vocabulary of a caption pretraining from the captions of data sets.

python tools/build_vocabulary.py --dataset coco_2017_train_captions --vocab-size 10000 \\
    --output vocab/coco_10k.model
python tools/build_vocabulary.py --dataset pairs:my_data/images --vocab-size 8000 \\
    --output my_data/vocabulary.model
"""

import argparse
from collections.abc import Sequence

from virtex_det.cli.parsers import command_parser, positive
from virtex_det.data import train_tokenizer
from virtex_det.data.datasets import load_captions
from virtex_det.data.region_texts import vocabulary_texts
from virtex_det.escaping import say
from virtex_det.files import check_output


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the vocabulary that the command line names."""
    options = _parser().parse_args(arguments)
    check_output(options.output)
    captions = load_captions(options.dataset)
    texts = vocabulary_texts(options.boxes) if options.boxes else ()
    train_tokenizer([*captions, *texts], options.output, options.vocab_size)
    say(f"{options.output}: {options.vocab_size} pieces from {len(captions)} captions")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--dataset",
        nargs="+",
        required=True,
        metavar="NAME",
        help="data sets with captions: registered, or captions:FILE.json:IMAGE_FOLDER, "
        "pairs:FOLDER, pairs:FILE.jsonl, shards:PATTERN",
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=10000,
        metavar="N",
        help="number of pieces (default: %(default)s)",
    )
    parser.add_argument(
        "--boxes",
        type=positive,
        default=0,
        metavar="N",
        help="learn LocCa's prompts and the numbers 0 to N - 1, too; N as INPUT.CAPTION.BOX_BINS",
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="model file to write")
    return parser
