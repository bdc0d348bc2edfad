"""Measure what a backbone has learned, whoever trained it; the weights decide its architecture.

    python tools/probe.py voc07 MODEL.WEIGHTS virtex://bicaptioning_R_50_L1_H2048
    python tools/probe.py svm MODEL.WEIGHTS output/scenes/pretrain/model_final.pth
    python tools/probe.py imagenet --num-gpus 8 \\
        MODEL.WEIGHTS output/pretrain/model_final.pth OUTPUT_DIR output/linear
    python tools/probe.py inaturalist --num-gpus 8 MODEL.WEIGHTS moco_v2_800ep_pretrain.pth.tar

voc07: linear SVMs on frozen features. svm: the same on any data set with boxes, by default the
built-in scenes. imagenet: a linear classifier on frozen features. inaturalist: fine-tuning of all
layers. Without MODEL.WEIGHTS the backbone has random weights. Each has a config in configs/probes,
which --config-file can replace, and writes a result record to OUTPUT_DIR. The last two train like
tools/train_net.py, with --resume, --eval-only and the rest.
"""

import argparse
import math
from collections.abc import Sequence

from virtex_det.cli.parsers import command_parser, positive
from virtex_det.config.help import key_help
from virtex_det.engine import Trainer, argument_parser, evaluate, launch, setup
from virtex_det.engine.probe import follow_backbone, probe_svm
from virtex_det.evaluation.probes import COSTS, FOLDS
from virtex_det_commands import as_called

CONFIGS = {
    "voc07": "voc07_svm.yaml",
    "svm": "scenes_svm.yaml",
    "imagenet": "imagenet_linear.yaml",
    "inaturalist": "inaturalist_2018_finetune.yaml",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the probe that the command line names, in as many processes as it asks for."""
    launch(probe, parse(arguments))


def probe(args: argparse.Namespace) -> None:
    """Run a probe in one process."""
    cfg = setup(follow_backbone(args))
    if args.probe in ("svm", "voc07"):
        probe_svm(cfg, args.costs, args.folds)
    elif args.eval_only:
        evaluate(cfg, resume=args.resume)
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line: a probe's name, then what tools/train_net.py takes."""
    parser = command_parser(__doc__)
    probes = parser.add_subparsers(dest="probe", required=True)
    for name, config in CONFIGS.items():
        command = probes.add_parser(
            name,
            parents=[argument_parser()],
            conflict_handler="resolve",
            epilog=as_called(key_help()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(config_file=f"probes/{config}")
        if name in ("svm", "voc07"):
            costs = "candidate costs of an SVM, separated by commas (default: %(default)s)"
            command.add_argument("--costs", type=_costs, default=COSTS, help=costs)
            folds = "folds of the cross-validation that chooses a cost (default: %(default)s)"
            command.add_argument("--folds", type=_folds, default=FOLDS, help=folds)
    return parser.parse_args(arguments)


def _costs(text: str) -> tuple[float, ...]:
    try:
        costs = tuple(map(float, text.split(",")))
    except ValueError:
        costs = ()
    if not costs or not all(0 < cost < math.inf for cost in costs):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers above 0, such as 0.1,1"
        )
    return costs


def _folds(text: str) -> int:
    number = positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 2")
    return number
