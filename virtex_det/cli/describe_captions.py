"""Compare captions in numbers: their length, their parts of speech, and what they name.

python tools/describe_captions.py --dataset coco_2017_val_captions scenes_val_captions
"""

from collections.abc import Sequence

from virtex_det.cli.parsers import command_parser
from virtex_det.data.caption_statistics import caption_statistics, statistics_table
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError
from virtex_det.escaping import say


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table in Markdown with a column for each data set."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--dataset", nargs="+", required=True, metavar="NAME", help="data sets with captions"
    )
    options = parser.parse_args(arguments)
    statistics = {}
    for name in options.dataset:
        statistics[name] = caption_statistics(_captions(name))
    say(statistics_table(statistics))


def _captions(name: str) -> list[list[str]]:
    captions = [example.get("captions", []) for example in load_dataset(name)]
    if not any(captions):
        raise UserError(
            f"The data set {name} has no captions. Name one that does, such as "
            "coco_2017_val_captions."
        )
    return captions
