"""Write a config for own data: one that suits them, the weights and this machine, with reasons.

    python tools/init_config.py coco:train.json:images coco:val.json:images \\
        --weights bicaptioning_R_50_L1_H2048 --output run.yaml
for a laptop; the time of an epoch is measured:
    python tools/init_config.py yolo:data.yaml:train yolo:data.yaml:val \\
        --weights torchvision_resnet18 --small --output run.yaml
then, with any change that you make in the file:
    python tools/train_net.py --config-file run.yaml

The data are checked as before a training.
"""

import argparse
import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from virtex_det.cli.parsers import (
    add_data,
    add_new_output,
    as_classes,
    check_new_output,
    command_parser,
)
from virtex_det.config import load_config
from virtex_det.data.datasets.loading import files_of
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.files import check_output
from virtex_det.own_data.config_text import config_text
from virtex_det.own_data.first_config import (
    FirstConfig,
    Machine,
    choose,
    gpus_in_words,
    this_machine,
)
from virtex_det.own_data.look import Look, divide, look_at
from virtex_det.own_data.start_weights import Start, find_start
from virtex_det.own_data.step_time import in_words, time_steps
from virtex_det.utils import write_atomically
from virtex_det_commands import as_called


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the config that the command line describes."""
    options = _parser().parse_args(arguments)
    check_new_output(options, options.weights)
    start = find_start(options.weights)
    names = divide(options.data, options.val)
    check_output(options.output, *files_of(chain(*names)))
    look = look_at(*names, as_classes(options.classes))
    if look.problems:
        raise UserError(_not_ready(look, options))
    run = Path("output") / options.output.stem
    machine = this_machine()
    first = choose(look, start, machine, str(run), small=options.small, epochs=options.epochs)
    head = _head(first, look, start, machine)
    if options.small:
        seconds = time_steps(first.cfg, first.images)
        head.append(
            f"On this machine an epoch takes about {in_words(seconds.epoch)} "
            f"({seconds.step:.2g} s a step), the whole run "
            f"{in_words(first.epochs * seconds.epoch)}."
        )
    write_atomically(options.output, config_text(first, head))
    load_config(options.output)
    say("\n".join(head))
    say(f"\nwritten: {options.output}, with reasons beside the values. Next:")
    gpus = f" --num-gpus {machine.gpus}" if machine.gpus > 1 and not options.small else ""
    train = as_called("python tools/train_net.py")
    say(f"  {train} --config-file {shlex.quote(str(options.output))}{gpus}")


def _head(first: FirstConfig, look: Look, start: Start, machine: Machine) -> list[str]:
    what = "Mask R-CNN" if first.cfg.MODEL.MASK_ON else "Faster R-CNN"
    depth, batch = first.cfg.MODEL.RESNETS.DEPTH, first.cfg.SOLVER.IMS_PER_BATCH
    where = gpus_in_words(machine.gpus) if machine.gpus else "a machine without a GPU"
    images = sum(len(each.dicts) for each in look.train)
    head = [
        f"{what} R{depth}-FPN from {start.weights or 'random init'}, on {images} images of "
        f"{first.cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes. Made for {where}.",
        f"Schedule: {first.cfg.SOLVER.MAX_ITER} it x {batch} img / {first.images} img = "
        f"{first.cfg.SOLVER.MAX_ITER * batch / first.images:.1f} epochs.",
    ]
    if images > first.images:
        head.append(
            f"{images - first.images} images without objects are left out "
            "(DATALOADER.FILTER_EMPTY_ANNOTATIONS)."
        )
    return head


def _not_ready(look: Look, options: argparse.Namespace) -> str:
    words = [*options.data]
    for option, values in (("--val", options.val), ("--classes", [options.classes])):
        words += [option, *values] if any(values) else []
    more = f"\n({len(look.problems) - 1} more problems)" if len(look.problems) > 1 else ""
    return (
        f"a training on these data would not begin:\n{look.problems[0]}{more}\n"
        f"All of them: python tools/check_data.py {shlex.join(words)}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    add_data(parser)
    parser.add_argument(
        "--weights",
        default="",
        metavar="NAME|FILE",
        help="a name of the model zoo, which training fetches, or a file (default: random init)",
    )
    add_new_output(parser, "FILE.yaml")
    parser.add_argument(
        "--small", action="store_true", help="for a laptop: an R-18, small images, few epochs"
    )
    parser.add_argument(
        "--epochs", type=_epochs, metavar="N", help="length of the schedule (default: by the data)"
    )
    return parser


def _epochs(text: str) -> float:
    try:
        epochs = float(text)
    except ValueError:
        epochs = 0
    if not 0 < epochs <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of epochs from 0 to 10000")
    return epochs
