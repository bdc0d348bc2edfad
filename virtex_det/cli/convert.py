"""Convert weights of any known family for stock Detectron2, safetensors, torchvision or VirTex.

python tools/convert_weights.py bicaptioning_R_50_L1_H2048.pth virtex.pkl
python tools/convert_weights.py RN50.pt clip.safetensors
python tools/convert_weights.py model_final.pth torchvision.pth --to torchvision
python tools/convert_weights.py model_final.pth virtex.pth --to virtex
"""

import argparse
from collections.abc import Sequence
from typing import get_args

from virtex_det.checkpoint import convert
from virtex_det.checkpoint.conversion import Naming
from virtex_det.cli.parsers import command_parser
from virtex_det.escaping import say
from virtex_det.files import check_output


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the file that the command line names."""
    options = _parser().parse_args(arguments)
    check_output(options.target, options.source)
    report = convert(
        options.source, options.target, family=options.format, prefix=options.prefix, to=options.to
    )
    say(f"{options.source} (format {report.format}, sha256 {report.sha256}) -> {options.target}")
    say(report.table())


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument("source", metavar="SRC", help="weights file, URL, or virtex://NAME")
    parser.add_argument(
        "target", metavar="DST", help="file to write; its suffix is .pth, .pkl or .safetensors"
    )
    parser.add_argument(
        "--format",
        default="",
        metavar="NAME",
        help="family of SRC (default: recognised by content)",
    )
    parser.add_argument(
        "--prefix", default="", help="prefix of the network's names in SRC, if it holds several"
    )
    parser.add_argument(
        "--to",
        choices=get_args(Naming),
        default="detectron2",
        help="whose tensor names to write (default: %(default)s)",
    )
    return parser
