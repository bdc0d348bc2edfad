"""A config made for own data and this machine: what it sets, and why.

Numbers without a source are rules of thumb of this package; each stands in the config beside its
reason, so that a user can judge it.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode

from virtex_det.config import load_config, override
from virtex_det.config.nodes import plain_leaves
from virtex_det.errors import UserError
from virtex_det.own_data.look import Look, model_keys
from virtex_det.own_data.start_weights import Start
from virtex_det.own_data.survey import Survey, images_without_objects

# Size of images: the smallest tenth of the objects gets this side, in pixels of the resized image.
_SIDE, _SIDE_SMALL = 24, 12
_SHORTEST, _LONGEST = 480, 1216  # allowed shortest sides of resized images
_SHORTEST_SMALL, _LONGEST_SMALL = 160, 320
_STEP = 32
_ENLARGED = 2.0  # beyond it, pixels only repeat
_RATIO = 5 / 3  # longest side to shortest, as 1333 to 800

# Schedule: images seen in all, between bounds in epochs. 12 epochs are Detectron2's 1x on COCO.
_SEEN, _SEEN_SMALL = 30_000, 10_000
_EPOCHS, _EPOCHS_SMALL = (12, 100), (5, 50)
_STEPS = 8 / 12, 11 / 12  # of the schedule, where the rate falls to a tenth
_WARMUP = 0.1  # of the schedule, at most
_EVALUATIONS = 5

_BATCH, _BATCH_SMALL = 16, 4  # images
_GIGABYTES = 3.5  # that an image of 800 x 1333 takes in training R-50 FPN in fp32, with masks
_RESERVED = 2.0  # gigabytes of weights and of CUDA itself
_FEWEST_FOR_NORM = 8  # images in a batch, fewer than which batch norm has poor statistics
_CROWDED = 80  # objects in an image, above which 100 detections are too few

# What a reader looks for, also where the base has the same.
_ALWAYS = (
    *("MODEL.MASK_ON", "MODEL.ROI_HEADS.NUM_CLASSES", "DATASETS.TEST"),
    *("SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR"),
)

_SMALL_KEYS = {
    "MODEL.RESNETS.DEPTH": (18, "a network for a laptop"),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": (64, "of an R-18"),
}
_SMALL_HEADS = {
    "MODEL.ANCHOR_GENERATOR.SIZES": (
        [[16], [32], [64], [128], [256]],
        "half of the base's: images are smaller",
    ),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (500, "fewer proposals: faster"),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": (250, ""),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (500, ""),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (250, ""),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (128, ""),
}


class Machine(NamedTuple):
    """What a run will have.

    Attributes:
        gpus: number of GPUs.
        gigabytes: memory of the smallest GPU; 0 without one.
        cores: of the processor that this process may use.
    """

    gpus: int
    gigabytes: float
    cores: int


class Choice(NamedTuple):
    """A key of the config, its value and the reason."""

    key: str
    value: Any
    why: str = ""


class FirstConfig(NamedTuple):
    """A config made for data and a machine.

    Attributes:
        base: what it is a diff of.
        choices: its keys, in the order of the file.
        images: number of training images with objects.
        epochs: length of the schedule.
        cfg: the whole config.
    """

    base: str
    choices: list[Choice]
    images: int
    epochs: float
    cfg: CfgNode


def this_machine() -> Machine:
    """Return what PyTorch and the system find here."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    memory = [torch.cuda.get_device_properties(gpu).total_memory for gpu in range(gpus)]
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return Machine(gpus, min(memory, default=0) / 2**30, cores)


def gpus_in_words(gpus: int) -> str:
    """Return a number of GPUs, such as "1 GPU" or "8 GPUs"."""
    return f"{gpus} GPU" + ("s" if gpus != 1 else "")


def choose(
    look: Look,
    start: Start,
    machine: Machine,
    output: str,
    *,
    small: bool = False,
    epochs: float | None = None,
) -> FirstConfig:
    """Choose a config for data, weights and a machine.

    Args:
        look: at the data; without problems.
        start: the weights.
        machine: the run's.
        output: OUTPUT_DIR.
        small: for a laptop.
        epochs: length of the schedule; None to choose it.

    Raises:
        UserError: no image has an object.
    """
    base = load_config(start.base)
    images = sum(len(each.dicts) - images_without_objects(each) for each in look.train)
    if not images:
        raise UserError(f"no image of {_names(look.train)} has an object to train on.")
    choices = [
        *_model(look, start, small, base),
        *_data(look, machine),
    ]
    sizes, shortest = _sizes(look.train, small)
    batch, why_batch = _batch(machine, images, shortest, small)
    number = epochs or _epochs(images, small)
    choices += sizes
    choices += _norms(batch, start)
    choices += _solver(base, images, batch, why_batch, number)
    period = next(choice.value for choice in choices if choice.key == "SOLVER.CHECKPOINT_PERIOD")
    choices += _test(look, period)
    choices += [Choice("OUTPUT_DIR", output), Choice("SEED", 0)]
    plain = plain_leaves(base)
    choices = [
        each
        for each in choices
        if each.key in _ALWAYS or _as_read(each.value) != plain.get(each.key)
    ]
    cfg = override(base, {choice.key: choice.value for choice in choices})
    return FirstConfig(start.base, choices, images, number, cfg)


def _model(look: Look, start: Start, small: bool, base: CfgNode) -> list[Choice]:
    keys = model_keys(look.train)
    objects = sum(int((~each.objects.crowds).sum()) for each in look.train)
    masked = sum(int((each.objects.masks[~each.objects.crowds] != "").sum()) for each in look.train)
    why = f"{masked} of {objects} objects have a mask"
    if 0 < masked < objects:
        why += ", and all would need one"
    found = [Choice("MODEL.WEIGHTS", start.weights, start.what)]
    found += [Choice(key, value, "of the weights") for key, value in start.keys.items()]
    if small and not start.weights:
        found += [Choice(key, *rest) for key, rest in _SMALL_KEYS.items()]
    if small:
        found += [Choice(key, *rest) for key, rest in _SMALL_HEADS.items()]
    found.append(Choice("MODEL.MASK_ON", keys["MODEL.MASK_ON"], why))
    number = keys["MODEL.ROI_HEADS.NUM_CLASSES"]
    found.append(Choice("MODEL.ROI_HEADS.NUM_CLASSES", number, _some(look.train[0].classes)))
    if _is_lvis(look):
        found.append(
            Choice("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0001, "LVIS: rare classes score low")
        )
    if "INPUT.MASK_FORMAT" in keys:
        found.append(
            Choice("INPUT.MASK_FORMAT", keys["INPUT.MASK_FORMAT"], "some masks are run lengths")
        )
    return found


def _data(look: Look, machine: Machine) -> list[Choice]:
    found = [
        Choice("DATASETS.TRAIN", [each.name for each in look.train]),
        Choice("DATASETS.TEST", [each.name for each in look.val], _why_no_test(look)),
        Choice(
            "DATASETS.CLASSES",
            list(map(_as_read, look.rules)),
            "other classes than the data's own, by --classes",
        ),
    ]
    workers = max(min(4, machine.cores // max(machine.gpus, 1) - 1), 0)
    found.append(
        Choice(
            "DATALOADER.NUM_WORKERS",
            workers,
            f"processes that load images; {machine.cores} cores here",
        )
    )
    if _is_lvis(look):
        found += [
            Choice(
                "DATALOADER.SAMPLER_TRAIN",
                "RepeatFactorTrainingSampler",
                "LVIS: images of rare classes more often",
            ),
            Choice("DATALOADER.REPEAT_THRESHOLD", 0.001),
        ]
    return found


def _why_no_test(look: Look) -> str:
    return "" if look.val else "nothing measures the run: name data for it by --val"


def _sizes(train: Sequence[Survey], small: bool) -> tuple[list[Choice], int]:
    """Return the keys of the images' sizes, and the largest shortest side."""
    sides = np.concatenate([each.objects.sides for each in train])
    shortest = np.concatenate([np.nanmin(each.sizes, axis=1) for each in train])
    native = float(np.nanmedian(shortest))
    tenth = float(np.percentile(sides, 10))
    wanted = _SIDE_SMALL if small else _SIDE
    low, high = (_SHORTEST_SMALL, _LONGEST_SMALL) if small else (_SHORTEST, _LONGEST)
    side = min(native * wanted / tenth, native * _ENLARGED)
    side = int(min(max(round(side / _STEP) * _STEP, low), high))
    longest = math.ceil(side * _RATIO / _STEP) * _STEP
    first = side * tenth / native
    why = (
        f"shortest sides; at {side} px a tenth of the objects is below {first:.0f} px (at the "
        f"images' own {native:.0f} px, below {tenth:.0f} px)"
    )
    steps = [side - _STEP * step for step in reversed(range(max(side // 5 // _STEP, 0) + 1))]
    return [
        Choice("INPUT.MIN_SIZE_TRAIN", steps, why),
        Choice("INPUT.MAX_SIZE_TRAIN", longest),
        Choice("INPUT.MIN_SIZE_TEST", side),
        Choice("INPUT.MAX_SIZE_TEST", longest),
    ], side


def _batch(machine: Machine, images: int, shortest: int, small: bool) -> tuple[int, str]:
    """Return the number of images in a batch, and the reason."""
    if small:
        return min(_BATCH_SMALL, images), "for a laptop"
    if not machine.gpus:
        return min(2, images), "no GPU here: a step takes seconds per image"
    of_image = _GIGABYTES * (shortest / 800) ** 2
    fitting = max(int((machine.gigabytes - _RESERVED) / of_image), 1)
    of_gpu = min(2 ** int(math.log2(fitting)), max(_BATCH // machine.gpus, 1))
    batch = max(min(of_gpu * machine.gpus, images // machine.gpus * machine.gpus), machine.gpus)
    return batch, (
        f"{gpus_in_words(machine.gpus)} of {machine.gigabytes:.0f} GB, about {of_image:.1f} GB an "
        "image"
    )


def _epochs_in_words(epochs: float) -> str:
    return f"{epochs:g} epoch" + ("s" if epochs != 1 else "")


def _epochs(images: int, small: bool) -> int:
    seen, (low, high) = (_SEEN_SMALL, _EPOCHS_SMALL) if small else (_SEEN, _EPOCHS)
    return min(max(round(seen / images), low), high)


def _norms(batch: int, start: Start) -> list[Choice]:
    """Return the keys of norms for a batch too small for statistics of its own."""
    if batch >= _FEWEST_FOR_NORM:
        return []
    why = f"a batch of {batch} is too small for batch norm"
    if not start.weights:
        return [
            Choice("MODEL.RESNETS.NORM", "GN", f"{why}: group norm"),
            Choice("MODEL.FPN.NORM", "GN", "the same"),
            Choice("TEST.PRECISE_BN.ENABLED", False, "group norm has no statistics to measure"),
        ]
    return [
        Choice("MODEL.RESNETS.NORM", "FrozenBN", f"{why}: the statistics of the weights stay"),
        Choice("MODEL.FPN.NORM", "", "none: new layers have no statistics to keep"),
        Choice("TEST.PRECISE_BN.ENABLED", False, "the statistics stay"),
    ]


def _solver(base: CfgNode, images: int, batch: int, why_batch: str, epochs: float) -> list[Choice]:
    total = max(math.ceil(epochs * images / batch), 2)
    rate = base.SOLVER.BASE_LR * batch / base.SOLVER.IMS_PER_BATCH
    warmup = max(min(base.SOLVER.WARMUP_ITERS, int(_WARMUP * total)), 1)
    steps = [step for share in _STEPS if warmup < (step := round(share * total)) < total]
    period = max(total // _EVALUATIONS, 1)
    return [
        Choice("SOLVER.IMS_PER_BATCH", batch, why_batch),
        Choice(
            "SOLVER.BASE_LR",
            float(f"{rate:.4g}"),
            f"{base.SOLVER.BASE_LR:g} x {batch} / {base.SOLVER.IMS_PER_BATCH}",
        ),
        Choice("SOLVER.MAX_ITER", total, f"{_epochs_in_words(epochs)} x {images} images / {batch}"),
        Choice(
            "SOLVER.STEPS",
            sorted(set(steps)),
            "the rate falls to a tenth after 8/12 and after 11/12, as in Detectron2's 1x",
        ),
        Choice("SOLVER.WARMUP_ITERS", warmup, f"{warmup * batch / images:.3g} epochs"),
        Choice("SOLVER.CHECKPOINT_PERIOD", period, f"every {period * batch / images:.3g} epochs"),
    ]


def _test(look: Look, period: int) -> list[Choice]:
    found = [Choice("TEST.EVAL_PERIOD", period if look.val else 0, "with each checkpoint")]
    most = max(_most_objects(each) for each in (*look.train, *look.val))
    if _is_lvis(look):
        return [*found, Choice("TEST.DETECTIONS_PER_IMAGE", 300, "as LVIS is evaluated")]
    if most > _CROWDED:
        number = min(math.ceil(1.25 * most / 100) * 100, 1000)
        found.append(Choice("TEST.DETECTIONS_PER_IMAGE", number, f"an image has {most} objects"))
    return found


def _most_objects(survey: Survey) -> int:
    images = survey.objects.images[~survey.objects.crowds]
    return int(np.bincount(images).max()) if len(images) else 0


def _is_lvis(look: Look) -> bool:
    return all(each.name.startswith("lvis") for each in look.train)


def _names(surveys: Sequence[Survey]) -> str:
    return ", ".join(each.name for each in surveys)


def _some(names: Sequence[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if names[shown:] else "")


def _as_read(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
