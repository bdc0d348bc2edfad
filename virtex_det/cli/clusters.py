"""Divide captions into the clusters that TP_Cluster predicts: k-means over BERT or TF-IDF vectors.

python tools/build_clusters.py --dataset coco_2017_train_captions \\
    --bert google-bert/bert-base-uncased --size 5000 --output vocab/coco_clusters_5k.json
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from virtex_det.cli.parsers import command_parser
from virtex_det.data.clusters import check_numbers, cluster, tf_idf
from virtex_det.data.datasets import load_captions
from virtex_det.data.wordpiece import WordPieceTokenizer
from virtex_det.escaping import say
from virtex_det.files import check_output
from virtex_det.modeling.textual.bert import BertTextEncoder, sentence_vectors


def main(arguments: Sequence[str] | None = None) -> None:
    """Cluster the captions that the command line names."""
    options = _parser().parse_args(arguments)
    check_output(options.output)
    captions = sorted(set(load_captions(options.dataset)))
    check_numbers(len(captions), options.size, options.seed)
    if options.bert:
        vectors, made_by = _bert_vectors(captions, options), options.bert
    else:
        vectors, made_by = tf_idf(captions), "tf-idf"
    clusters = cluster(captions, vectors, options.size, options.seed, made_by)
    clusters.write(options.output)
    say(
        f"{options.output}: {options.size} clusters of {len(captions)} different captions, by "
        f"{made_by}"
    )


def _bert_vectors(captions: list[str], options: argparse.Namespace) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = BertTextEncoder(options.bert).to(device)
    return sentence_vectors(captions, WordPieceTokenizer(options.bert), encoder, device=device)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--dataset", nargs="+", required=True, metavar="NAME", help="datasets with captions"
    )
    parser.add_argument(
        "--bert",
        default="",
        metavar="PATH",
        help="folder or hub name of a BERT (default: TF-IDF of the words)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=5000,
        metavar="K",
        help="number of clusters (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of k-means (default: %(default)s)"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON file to write")
    return parser
