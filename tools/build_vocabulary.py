#!/usr/bin/env python3
"""Make the SentencePiece vocabulary that caption pretraining reads, from the captions of registered datasets.

python tools/build_vocabulary.py --dataset coco_2017_train_captions --vocab-size 10000 --output vocab/coco_10k.model
"""

import argparse
import sys

import virtex_det  # noqa: F401  registers the datasets
from virtex_det.data import train_tokenizer
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", required=True, metavar="NAME", help="datasets with captions")
    parser.add_argument("--vocab-size", type=int, default=10000, metavar="N", help="pieces (default: %(default)s)")
    parser.add_argument("--output", required=True, metavar="PATH", help="model file to write")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Make the vocabulary."""
    captions = [
        caption for name in args.dataset for example in load_dataset(name) for caption in example.get("captions", [])
    ]
    train_tokenizer(captions, args.output, args.vocab_size)
    print(f"{args.output}: {args.vocab_size} pieces from {len(captions)} captions of {', '.join(args.dataset)}")


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
