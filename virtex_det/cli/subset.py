"""Show a part of a data set, and list its images in a file.

    python tools/subset.py --dataset coco_2017_train --fraction 0.1 --seed 0
    python tools/subset.py --dataset lvis_v1_train --fraction 0.05 --stratified --output lvis_5.json
    python tools/subset.py --dataset coco_2017_train --fraction 0.1 --seed 1 \\
        --split COCO_supervision.txt --output coco_10_1.json
    python tools/subset.py --dataset coco_2017_train --fraction 0.01 0.1 --seed 0 1 2 \\
        --format unbiased-teacher --output COCO_supervision.txt

DATASETS.SUBSET_FILE accepts all three formats. docs/low_data.md has the rules.
"""

import argparse
from collections.abc import Sequence

from detectron2.config import CfgNode

from virtex_det import get_cfg
from virtex_det.cli.parsers import add_classes, as_classes, command_parser
from virtex_det.data.datasets import load_dataset, make_manifest
from virtex_det.data.datasets.split_files import Subset, subset_of, write_ids, write_index_file
from virtex_det.data.following import give_classes
from virtex_det.data.training_set import choose_images, describe_part, subset_in
from virtex_det.escaping import say
from virtex_det.files import check_output


def main(arguments: Sequence[str] | None = None) -> None:
    """Show or write the part that the command line describes."""
    parser = _parser()
    options = parser.parse_args(arguments)
    check_output(options.output, options.split)
    give_classes(options.dataset, as_classes(options.classes))
    if options.split and not options.fraction and (stated := subset_of(options.split)):
        parts = [stated]
    else:
        parts = [
            Subset(fraction, seed, options.stratified)
            for fraction in options.fraction or [1.0]
            for seed in options.seed
        ]
    if options.format == "unbiased-teacher":
        _write_index_file(parser, options, parts)
    elif len(parts) > 1:
        parser.error(
            f"{len(parts)} parts are named, but a file of format {options.format} holds one; name "
            "one fraction and one seed, or use --format unbiased-teacher"
        )
    else:
        _show_and_write(options, part_config(options.dataset, parts[0], options.split))


def _show_and_write(options: argparse.Namespace, cfg: CfgNode) -> None:
    chosen = choose_images(cfg)
    manifest = make_manifest(chosen, subset_in(cfg))
    say(describe_part(chosen))
    say(f"sha256 {manifest.sha256}")
    if not options.output:
        return
    if options.format == "manifest":
        manifest.write(options.output)
    else:
        write_ids(options.output, manifest)
    number = sum(map(len, manifest.ids.values()))
    say(f"{options.output}: {number} image ids, for DATASETS.SUBSET_FILE")


def _write_index_file(
    parser: argparse.ArgumentParser, options: argparse.Namespace, parts: list[Subset]
) -> None:
    if options.split:
        parser.error("--format unbiased-teacher is for --fraction, not for --split")
    if not options.output:
        parser.error("--format unbiased-teacher needs --output")
    write_index_file(options.output, {name: load_dataset(name) for name in options.dataset}, parts)
    say(
        f"{options.output}: {len(parts)} entries in Unbiased Teacher's format, for "
        "DATASETS.SUBSET_FILE"
    )


def part_config(names: Sequence[str], part: Subset, split: str = "") -> CfgNode:
    """Return a config whose training images are a part of data sets.

    Args:
        names: of the data sets.
        part: the part.
        split: a split file that names it.
    """
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = tuple(names)
    cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.SUBSET_SEED, cfg.DATASETS.SUBSET_STRATIFIED = part
    cfg.DATASETS.SUBSET_FILE = split
    return cfg


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--dataset",
        nargs="+",
        required=True,
        metavar="NAME",
        help="data sets as in DATASETS.TRAIN: registered ones, or such as yolo:data.yaml:train",
    )
    add_classes(parser)
    parser.add_argument(
        "--fraction",
        nargs="+",
        type=float,
        metavar="F",
        help="fraction of the images (default: all)",
    )
    parser.add_argument(
        "--seed",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="seed that chooses the images (default: 0)",
    )
    parser.add_argument(
        "--stratified", action="store_true", help="take the same fraction of every category"
    )
    parser.add_argument(
        "--split",
        default="",
        metavar="FILE",
        help="a split file to show, or to write in another format",
    )
    parser.add_argument(
        "--format",
        choices=("manifest", "ids", "unbiased-teacher"),
        default="manifest",
        help="format of --output (default: %(default)s)",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="file to write (default: only show the part)"
    )
    return parser
