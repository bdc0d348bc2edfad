"""Export a trained detector as one file for ONNX Runtime, TensorRT, Triton or PyTorch without us.

a run of train_net.py, for ONNX Runtime or TensorRT:
    python tools/export.py --run output/my_segm --to onnx my_segm.onnx
for LibTorch, or for PyTorch by torch.export.load:
    python tools/export.py --run output/my_segm --to torchscript my_segm.ts
    python tools/export.py --run output/my_segm --to torch.export my_segm.pt2
a weights file:
    python tools/export.py --config-file config.yaml --to onnx model.onnx MODEL.WEIGHTS model.pth

The file is compared with the model on pictures of DATASETS.TEST, at three sizes, before it gets its
name. docs/export.md says how to use it.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from virtex_det.cli.parsers import command_parser
from virtex_det.config import load_config
from virtex_det.data.pictures import find_images
from virtex_det.inference.export import FORMS, export, table


def main(arguments: Sequence[str] | None = None) -> None:
    """Export a detector, and print how far the file is from the model."""
    options = _parser().parse_intermixed_args(arguments)
    pictures = find_images(options.pictures) if options.pictures else ()
    source = options.run or load_config(options.config_file, options.opts)
    done = export(
        source,
        options.file,
        options.to,
        overrides=options.opts,
        pictures=pictures,
        tell=partial(print, flush=True),
    )
    print(f"\nThe file compared with the model:\n\n{table(done.comparisons)}\n")
    sizes = done.metadata["input"]
    print(
        f"written: {done.file} ({done.file.stat().st_size / 1e6:.1f} MB), "
        f"{len(done.metadata['classes'])} classes\n"
        f"input:   {sizes['name']}, {sizes['type']} ({', '.join(map(str, sizes['shape']))}), "
        f"{sizes['channels']}\n"
        f"outputs: {', '.join(done.metadata['outputs'])}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--run", metavar="RUN", help="OUTPUT_DIR of a detector's run, or a checkpoint in it"
    )
    model.add_argument(
        "--config-file", metavar="FILE", help="config of a detector, with MODEL.WEIGHTS set"
    )
    parser.add_argument("--to", required=True, choices=FORMS, help="form of the file")
    parser.add_argument("file", metavar="FILE", help="file to write; it must not exist")
    parser.add_argument(
        "--pictures",
        action="append",
        metavar="PICTURES",
        help="file, folder or quoted pattern to compare on; may be given several times (default: "
        "three pictures of DATASETS.TEST)",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to set")
    return parser
