"""Export of detectors: one file for onnxruntime, TorchScript or torch.export, checked at once."""

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import AugInput
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Instances
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

import virtex_det
from virtex_det.checkpoint.last import check_finished
from virtex_det.config import Overrides, override_pairs
from virtex_det.data.datasets import load_dataset
from virtex_det.data.images import image_tensor, read_image
from virtex_det.data.pictures import Pictures, list_pictures, picture_name, read_rgb
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.box_masks import UnpastedMasks, instances_of
from virtex_det.files import refuse_special_target
from virtex_det.inference.agreement import Bound, Detections, Difference, Rules, compare
from virtex_det.inference.detector import Detector
from virtex_det.inference.trained import DETECTION, Source, trained_config
from virtex_det.modeling.exportable import ExportableDetector, exportable, program_of
from virtex_det.utils import replacing

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Takes (batch, 3, height, width) uint8, RGB; returns what ExportableDetector.outputs names.
Exported: TypeAlias = Callable[[Tensor], Sequence[Tensor]]

INPUT = "images"
METADATA_FILE = "metadata.json"  # in files of TorchScript and torch.export
_SIZES = (1.0, 0.75, 0.5)  # of the size that the model resizes a picture to
_OF_TEST_SET = 3  # pictures
_OF_OWN = 10  # at most
_PLAIN = {"SOLVER.AMP.ENABLED": False, "MODEL.DEVICE": "cpu"}  # a file computes in float32
_SECONDS_BEFORE_A_BAR = 2
_MEANINGS = {
    "boxes": "(batch, detections, 4) float32: x0, y0, x1, y1 in pixels of the image given",
    "scores": "(batch, detections) float32, the best first",
    "classes": "(batch, detections) int64, from 0; -1 where there is no further detection",
    "masks": "(batch, detections, M, M) float32: probabilities in M x M cells of the box",
}


class Sample(NamedTuple):
    """A picture to compare on: (batch, 3, height, width) uint8, RGB."""

    picture: str
    images: Tensor


class Comparison(NamedTuple):
    """The exported file compared with the model on one picture at one size."""

    picture: str
    height: int
    width: int
    batch: int  # images at once in the exported file
    difference: Difference


class Export(NamedTuple):
    """What was written, and how far it is from the model."""

    file: Path
    metadata: dict[str, Any]
    comparisons: tuple[Comparison, ...]


class Form(NamedTuple):
    """A kind of file.

    Attributes:
        packages: that it needs besides PyTorch.
        write: writes an exportable detector and metadata, given an example of its input.
        read: loads the file.
    """

    packages: tuple[str, ...]
    write: Callable[[ExportableDetector, Tensor, Path, dict[str, Any]], None]
    read: Callable[[Path], Exported]


def export(
    source: Source,
    file: str | os.PathLike[str],
    to: str,
    *,
    config: str | os.PathLike[str] | CfgNode | None = None,
    overrides: Overrides = (),
    pictures: Pictures = (),
    bound: Bound = Bound(),  # noqa: B008  (nothing can change it)
    tell: Callable[[str], object] = logger.info,
) -> Export:
    """Write a trained detector as one file, if the file detects what the model detects.

    Args:
        source: as for `Detector`; a run must have finished.
        file: to write; it must not exist.
        to: a name of `FORMS`.
        config: config of a weights file.
        overrides: config keys to set.
        pictures: to compare the file with the model on, as for a call of `Detector`; of more than
            ten, ten at even distances. By default three of DATASETS.TEST.
        bound: largest differences.
        tell: told what takes long, before it begins.

    Raises:
        UserError: the source is not a finished detector that can be exported, the file exists or
            cannot be written, packages or pictures are missing, or the file detects otherwise.
    """
    path, form = Path(file), _form(to)
    _check_target(path)
    keys = dict(override_pairs(overrides))
    if isinstance(source, str | os.PathLike) and "MODEL.WEIGHTS" not in keys:
        check_finished(source)
    cfg = trained_config(source, config, keys | _PLAIN, task=DETECTION)
    compared = _pictures(cfg, pictures)
    detector = Detector(cfg)
    model = exportable(detector.predictor.model, detector.cfg.INPUT.FORMAT).requires_grad_(False)
    metadata = _metadata(detector, model)
    samples = _samples(detector, compared, metadata["input"]["smallest_side"])
    tell(f"Tracing the model for {to}, which takes up to some minutes ...")
    with replacing(path) as unfinished, torch.no_grad():
        exported = _write(form, model, samples[0].images, unfinished, metadata)
        bar = tqdm(samples, "compared", unit="picture", delay=_SECONDS_BEFORE_A_BAR, leave=False)
        comparisons = [
            each for sample in bar for each in _compare(detector, exported, sample, bound)
        ]
        _check(comparisons, bound)
    return Export(path, metadata, tuple(comparisons))


def _form(name: str) -> Form:
    if name not in FORMS:
        raise UserError(f"There is no form {name!r} of exported models, but: {', '.join(FORMS)}.")
    missing = [package for package in FORMS[name].packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"An export to {name} needs {', '.join(missing)}, not installed here.\n"
            "Install all that it needs: pip install 'virtex_det[export]', or in a clone "
            "pip install -e '.[export]'."
        )
    return FORMS[name]


def _check_target(path: Path) -> None:
    refuse_special_target(path)
    if path.exists():
        raise UserError(f"{path} exists. Name another file, or delete it first.")


def _pictures(cfg: CfgNode, pictures: Pictures) -> list[tuple[str, np.ndarray]]:
    """Return names and RGB pixels of the pictures to compare on."""
    if not isinstance(pictures, Sequence) or len(pictures):
        return [
            (picture_name(picture) or f"picture {number}", read_rgb(picture, cfg.INPUT.MAX_VALUE))
            for number, picture in enumerate(_spread(list_pictures(pictures), _OF_OWN), start=1)
        ]
    advice = "Name pictures with objects (--pictures) to compare the file with the model on."
    if not cfg.DATASETS.TEST:
        raise UserError(f"DATASETS.TEST is empty.\n{advice}")
    try:
        dicts = load_dataset(cfg.DATASETS.TEST[0])
    except UserError as error:
        raise UserError(f"{error}\n{advice}") from error
    return [
        (each["file_name"], read_image(dict(each), "RGB", cfg.INPUT.MAX_VALUE))
        for each in _spread(dicts, _OF_TEST_SET)
    ]


def _spread(items: Sequence[Item], number: int) -> Sequence[Item]:
    """Return at most a number of items, at even distances."""
    return items[:: max(len(items) // number, 1)][:number]


def _metadata(detector: Detector, model: ExportableDetector) -> dict[str, Any]:
    """Return what a user of the file has to know."""
    cfg, rules = detector.cfg, _rules(detector)
    shapes = model.model.backbone.output_shape().values()
    return {
        "model": cfg.MODEL.META_ARCHITECTURE,
        "classes": list(detector.classes),
        "input": {
            "name": INPUT,
            "type": "uint8",
            "shape": ["batch", 3, "height", "width"],
            "channels": "RGB",
            "short_side": cfg.INPUT.MIN_SIZE_TEST,
            "longest_side": cfg.INPUT.MAX_SIZE_TEST,
            "smallest_side": max(shape.stride for shape in shapes) + 1,
            "resize": "bilinear, antialiased",
        },
        "outputs": {name: _MEANINGS[name] for name in model.outputs},
        "score_threshold": rules.score,
        "nms_threshold": rules.iou,
        "detections": rules.number,
        "weights_sha256": detector.report.sha256 if detector.report else "",
        "virtex_det": virtex_det.__version__,
        "torch": torch.__version__,
    }


def _rules(detector: Detector) -> Rules:
    model: Any = detector.predictor.model
    if isinstance(model, RetinaNet):
        return Rules(model.test_score_thresh, model.test_nms_thresh, model.max_detections_per_image)
    predictor = model.roi_heads.box_predictor
    return Rules(
        predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image
    )


def _samples(
    detector: Detector, pictures: Sequence[tuple[str, np.ndarray]], smallest_side: int
) -> list[Sample]:
    """Return each picture at each size, and once with its mirror image in one batch."""
    samples = []
    for name, pixels in pictures:
        augmented = AugInput(pixels)
        detector.predictor.aug(augmented)
        full = augmented.image
        for share in _SIZES:
            share = max(share, smallest_side / min(full.shape[:2]))
            size = [math.ceil(side * share) for side in full.shape[1::-1]]
            resized = np.asarray(Image.fromarray(full).resize(size, Image.Resampling.BILINEAR))
            samples.append(Sample(name, image_tensor(resized, "RGB")[None]))
    last = samples[-1]
    both = torch.cat((last.images, last.images.flip(3)))
    return [*samples, Sample(last.picture, both)]


def _write(
    form: Form, model: ExportableDetector, example: Tensor, path: Path, metadata: dict[str, Any]
) -> Exported:
    """Write a file and read it again; what the exporters of PyTorch warn of is checked anyway."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form.write(model, example.expand(2, -1, -1, -1), path, metadata)
            return form.read(path)
    except (UserError, OSError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"PyTorch cannot export this model: {type(error).__name__}: {reason:.300}\n"
            "docs/export.md says which models can be exported."
        ) from error


def _compare(
    detector: Detector, exported: Exported, sample: Sample, bound: Bound
) -> Iterator[Comparison]:
    """Compare the detections of a file and of the model in the images of a batch."""
    outputs = exported(sample.images)
    batch, _, height, width = sample.images.shape
    for number, image in enumerate(sample.images):
        expected = Detections.of_instances(_instances(detector, image))
        found = Detections.of_outputs(outputs, number)
        difference = compare(expected, found, _rules(detector), bound)
        yield Comparison(sample.picture, height, width, batch, difference)


def _instances(detector: Detector, image: Tensor) -> Instances:
    """Return what the model itself detects in an RGB image (3, height, width)."""
    model = UnpastedMasks.of(detector.predictor.model)
    ordered = image.flip(0) if detector.cfg.INPUT.FORMAT == "BGR" else image
    example = {"image": ordered, "height": image.shape[1], "width": image.shape[2]}
    return instances_of(model([example])[0], example)


def _check(comparisons: Sequence[Comparison], bound: Bound) -> None:
    """Refuse a file that detects otherwise than its model, or of which nothing is known."""
    if not any(each.difference.objects for each in comparisons):
        raise UserError(
            "The model found nothing in the pictures, so the exported file cannot be compared with "
            "it; nothing was written.\n"
            "Name pictures with objects, or set a lower SCORE_THRESH_TEST of the model."
        )
    wrong = [each for each in comparisons if not each.difference.within(bound)]
    if wrong:
        raise UserError(
            f"The exported file detects otherwise than the model in {len(wrong)} of "
            f"{len(comparisons)} comparisons; nothing was written.\n"
            f"{table(wrong)}\n"
            f"Allowed: {bound.box} pixels, {bound.score} of a score, {bound.mask} of a mask, and "
            "no object that only one of both finds, unless by a tie."
        )


def table(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as a table in text."""
    rows = [
        [
            Path(each.picture).name,
            f"{each.width} x {each.height}" + (f", batch of {each.batch}" * (each.batch > 1)),
            *each.difference,
        ]
        for each in comparisons
    ]
    headers = ["picture", "size", "objects", "boxes, pixels", "scores", "masks", "ties", "other"]
    return tabulate(rows, headers, floatfmt=".1e", missingval="-")


def _write_torchscript(
    model: ExportableDetector, example: Tensor, path: Path, metadata: dict[str, Any]
) -> None:
    traced = torch.jit.trace(model, (example,), check_trace=False)
    with path.open("wb") as file:
        torch.jit.save(traced, file, _extra_files={METADATA_FILE: json.dumps(metadata)})


def _write_program(
    model: ExportableDetector, example: Tensor, path: Path, metadata: dict[str, Any]
) -> None:
    with path.open("wb") as file:
        torch.export.save(
            program_of(model, example), file, extra_files={METADATA_FILE: json.dumps(metadata)}
        )


def _write_onnx(
    model: ExportableDetector, example: Tensor, path: Path, metadata: dict[str, Any]
) -> None:
    from virtex_det.inference.onnx_files import write_onnx

    write_onnx(model, example, path, metadata)


def _read_torchscript(path: Path) -> Exported:
    with path.open("rb") as file:
        return torch.jit.load(file)


def _read_program(path: Path) -> Exported:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _read_onnx(path: Path) -> Exported:
    from virtex_det.inference.onnx_files import read_onnx

    return read_onnx(path)


FORMS = {
    "onnx": Form(("onnx", "onnxscript", "onnxruntime"), _write_onnx, _read_onnx),
    "torchscript": Form((), _write_torchscript, _read_torchscript),
    "torch.export": Form((), _write_program, _read_program),
}
