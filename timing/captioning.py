#!/usr/bin/env python3
"""Time caption pretraining's decoders against their plain formulation.

Both have the same weights and give the same results; they take turns.

python timing/captioning.py                        everything, on the CPU with 1 thread and on a GPU
python timing/captioning.py --only training        or decoding, classification
python timing/captioning.py --device cpu --threads 4

Plain is what VirTex's public code computes, on the same modules of PyTorch:
  decoding        beam search; at each step it repeats the image's features for every beam, projects
                  them, and computes all positions with their logits; a loop over the beams keeps
                  tokens from following themselves
  training        bicaptioning that projects the image for each direction, and computes logits at
                  every position
  classification  the loss of token classification with a loop over the images

"Alone" times that part by itself. "Whole" adds the R-50 on images of 224 pixels, timed in the same
round: for plain as Detectron2 builds it, for virtex_det as train_net.py does. A training step is
forward and backward, without dropout. The whole step also updates the weights by clipping, SGD and
LookAhead; plain has a group and an iteration of a loop per parameter. Seconds are CPU time over all
threads, on a GPU wall time. A ratio is the median over rounds of plain / virtex_det. Weights are
random, and changed so that no caption ends early.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from virtex_det import get_cfg
from virtex_det.engine import Trainer
from virtex_det.engine.performance import tune_process
from virtex_det.errors import UserError
from virtex_det.modeling import TransformerDecoderTextualHead
from virtex_det.modeling.textual.generation import CONTINUATIONS_PER_BEAM, END, START, beam_search
from virtex_det.solver import build_optimizer

PLAIN, OURS = "plain", "virtex_det"
SPECIAL_TOKENS = 4  # unknown and padding, [SOS], [EOS], [MASK]
TOLERANCE = 1e-4  # relative, for rounding

Job = Callable[[], tuple[Tensor, ...]]  # returns tensors that must be equal in both formulations


class Sizes(NamedTuple):
    """Sizes of the models and batches; by default those of the published models."""

    resnet: dict[str, Any] = {"DEPTH": 50, "RES2_OUT_CHANNELS": 256}
    image: int = 224
    hidden: int = 1024
    vocabulary: int = 10000
    layers: tuple[int, ...] = (1, 4)
    decoding_batches: tuple[int, ...] = (1, 16)
    beam: int = 5
    steps: int = 30
    caption_lengths: tuple[int, ...] = (24, 17, 15, 14, 13, 12, 12, 11)  # about COCO's
    classification_batch: int = 32


SMALL = Sizes({"DEPTH": 18, "RES2_OUT_CHANNELS": 8}, 32, 32, 50, (1, 2), (1, 2), 3, 6, (6, 4, 3), 4)


class Comparison(NamedTuple):
    """A job in both formulations, and the rest of its step: backbone, and optimizer in training."""

    name: str
    alone: dict[str, Job]
    rest: dict[str, Callable[[], None]]


class GivenFeatures(nn.Module):
    """Takes a backbone's place, so that the rest of a model is timed alone."""

    def __init__(self, grid: Tensor) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the same features for all images."""
        return {"res5": self.grid}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        choices=list(COMPARISONS),
        nargs="+",
        default=list(COMPARISONS),
        help="what to time (default: all)",
    )
    parser.add_argument(
        "--device", choices=devices, nargs="+", default=devices, help="default: all there are"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="PyTorch's CPU threads (default: %(default)s)"
    )
    parser.add_argument(
        "--allocator", action="store_true", help="use train_net.py's allocator settings for both"
    )
    parser.add_argument(
        "--small", action="store_true", help="time tiny models, to check that the script works"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Time all jobs and print the table; fail if the two formulations gave different results."""
    torch.set_num_threads(args.threads)
    if args.allocator:
        tune_process()
    sizes = SMALL if args.small else Sizes()
    rows = []
    for device in args.device:
        for kind in args.only:
            for comparison in COMPARISONS[kind](sizes, device):
                rows.append(measure(comparison, device, args.rounds))
    formats = ("", "", ".3f", ".3f", ".2f", ".3f", ".3f", ".2f", ".0e")
    print(tabulate(rows, headers="keys", floatfmt=formats))
    if args.json:
        settings = {"torch": torch.__version__, "threads": args.threads, "rounds": args.rounds}
        args.json.write_text(json.dumps({**settings, "jobs": rows}, indent=2))
    if not all(row["difference"] < TOLERANCE for row in rows):
        raise UserError(f"The results of the two formulations differ by more than {TOLERANCE}.")


def measure(comparison: Comparison, device: str, rounds: int) -> dict[str, Any]:
    """Compare the results, which also warms up; then time both formulations in turn.

    Every other round goes backwards.
    """
    results = {name: job() for name, job in comparison.alone.items()}
    jobs = [("alone", PLAIN), ("alone", OURS), *(("rest", name) for name in comparison.rest)]
    seconds: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for number in tqdm(range(rounds), desc=comparison.name, leave=False, disable=rounds == 1):
        for part, name in jobs[:: -1 if number % 2 else 1]:
            seconds[part, name].append(seconds_of(getattr(comparison, part)[name], device))
    alone = np.array([seconds["alone", PLAIN], seconds["alone", OURS]])
    row = {"device": device, "job": comparison.name, **summarise(alone, "alone")}
    if comparison.rest:
        rest = np.array([seconds["rest", PLAIN], seconds["rest", OURS]])
        row |= summarise(alone + rest, "whole")
    return {**row, "difference": largest_difference(results[PLAIN], results[OURS])}


def seconds_of(job: Callable[[], Any], device: str) -> float:
    """Run a job and return CPU seconds of all threads, or wall seconds for a GPU."""
    if device == "cpu":
        start = time.process_time()
        job()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    job()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def summarise(seconds: np.ndarray, label: str) -> dict[str, float]:
    """Return the medians of (2, rounds) seconds, and the median over rounds of their ratio."""
    plain, ours = np.median(seconds, axis=1).tolist()
    ratio = float(np.median(seconds[0] / seconds[1]))
    return {f"{PLAIN} {label}": plain, f"{OURS} {label}": ours, f"ratio {label}": ratio}


def largest_difference(plain: tuple[Tensor, ...], ours: tuple[Tensor, ...]) -> float:
    """Return the largest relative difference of all numbers; 1 or more for different tokens."""
    return max(_difference(*pair) for pair in zip(plain, ours, strict=True))


def _difference(plain: Tensor, ours: Tensor) -> float:
    if not plain.is_floating_point():
        return float(not torch.equal(plain, ours))
    return ((ours - plain).abs() / plain.abs()).max().item()


def decoding(sizes: Sizes, device: str) -> Iterator[Comparison]:
    """Yield beam search for each number of layers and of images."""
    for layers in sizes.layers:
        models = build_both("CaptioningModel", sizes, device, layers)
        for model in models.values():
            model.eval().textual.output.bias.data[END] = -1e4  # every search takes all its steps
        for images in sizes.decoding_batches:
            grid = draw_grid(models[OURS], sizes, images)
            alone = {
                PLAIN: partial(
                    decode_plainly, models[PLAIN].textual, grid, sizes.beam, sizes.steps
                ),
                OURS: partial(decode, models[OURS].textual, grid, sizes.beam, sizes.steps),
            }
            yield Comparison(
                f"decoding, L{layers}, {images} images", alone, backbone_jobs(models, sizes, images)
            )


def decode(
    head: TransformerDecoderTextualHead, grid: Tensor, beam: int, steps: int
) -> tuple[Tensor, ...]:
    """Return captions and their log-probabilities by VirTex's beam search."""
    return beam_search(head, head.project(grid), beam_size=beam, max_steps=steps, keep_start=False)


@torch.no_grad()
def decode_plainly(
    head: TransformerDecoderTextualHead, grid: Tensor, beam: int, steps: int
) -> tuple[Tensor, ...]:
    """Return the same as ``decode``; every step recomputes all captions from their start."""
    start = torch.full((len(grid), 1), START, device=grid.device)
    scores, tokens = log_probabilities_plainly(head, start, grid).topk(beam)
    captions = tokens.unsqueeze(2)
    for _ in range(steps - 1):
        so_far = captions.flatten(0, 1)
        log_probabilities = log_probabilities_plainly(head, so_far, grid)
        for index in range(len(so_far)):
            log_probabilities[index, so_far[index, -1]] = -10000
        best, tokens = log_probabilities.unflatten(0, (-1, beam)).topk(CONTINUATIONS_PER_BEAM)
        scores, chosen = (scores.unsqueeze(2) + best).flatten(1).topk(beam)
        parents = (chosen // CONTINUATIONS_PER_BEAM).unsqueeze(2)
        newest = tokens.flatten(1).gather(1, chosen).unsqueeze(2)
        captions = torch.cat([captions.take_along_dim(parents, dim=1), newest], dim=2)
    return captions, scores


def log_probabilities_plainly(
    head: TransformerDecoderTextualHead, captions: Tensor, grid: Tensor
) -> Tensor:
    """Return the log-probabilities of the next token of captions (images * beams, length)."""
    repeated = grid.repeat_interleave(len(captions) // len(grid), dim=0)
    logits = head.output(head(captions, head.project(repeated)))
    return logits[:, -1].log_softmax(dim=1)


def training(sizes: Sizes, device: str) -> Iterator[Comparison]:
    """Yield a step of bicaptioning."""
    models = build_both("BicaptioningModel", sizes, device, sizes.layers[0])
    images = len(sizes.caption_lengths)
    update = {
        PLAIN: plain_update(models[PLAIN]),
        OURS: build_optimizer(training_config(), models[OURS]).step,
    }
    rest = {
        name: partial(in_turn, job, update[name])
        for name, job in backbone_jobs(models, sizes, images).items()
    }
    captions = [
        torch.randint(SPECIAL_TOKENS, sizes.vocabulary, (n,), device=device)
        for n in sizes.caption_lengths
    ]
    for caption in captions:
        caption[0], caption[-1] = START, END
    grid = draw_grid(models[OURS], sizes, images).requires_grad_()
    alone = {
        PLAIN: partial(
            step, models[PLAIN], partial(bicaption_plainly, models[PLAIN], grid, captions)
        ),
        OURS: partial(step, models[OURS], losses_alone(models[OURS], grid, captions)),
    }
    yield Comparison(f"training, L{sizes.layers[0]}, {images} images", alone, rest)


def bicaption_plainly(model: nn.Module, grid: Tensor, captions: list[Tensor]) -> dict[str, Tensor]:
    """Return the losses of both directions, which share no computation."""
    return {
        "forward": caption_plainly(model.textual, grid, captions),
        "backward": caption_plainly(
            model.backward_textual, grid, [caption.flip(0) for caption in captions]
        ),
    }


def caption_plainly(
    head: TransformerDecoderTextualHead, grid: Tensor, captions: list[Tensor]
) -> Tensor:
    """Return the loss, from logits at every position."""
    tokens = pad_sequence(captions, batch_first=True)
    logits = head.output(head(tokens, head.project(grid)))
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=head.padding_idx
    )


def training_config() -> CfgNode:
    """Return the published update rule at learning rate 0: all of its work, unchanged weights."""
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.LOOKAHEAD.ENABLED = 0.0, True
    cfg.SOLVER.CLIP_GRADIENTS.update(
        {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 10.0}
    )
    return cfg


def plain_update(model: nn.Module) -> Callable[[], None]:
    """Return the same update with a group for each parameter, and LookAhead as a loop over them."""
    solver, fast = training_config().SOLVER, list(model.parameters())
    groups = [{"params": [parameter]} for parameter in fast]
    optimizer = torch.optim.SGD(
        groups, lr=0.0, momentum=solver.MOMENTUM, weight_decay=solver.WEIGHT_DECAY
    )
    slow, steps = [parameter.detach().clone() for parameter in fast], itertools.count(1)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(fast, solver.CLIP_GRADIENTS.CLIP_VALUE)
        optimizer.step()
        if next(steps) % solver.LOOKAHEAD.STEPS == 0:
            for kept, parameter in zip(slow, fast, strict=True):
                kept.add_(parameter.detach() - kept, alpha=solver.LOOKAHEAD.ALPHA)
                parameter.data.copy_(kept)

    return update


def in_turn(*jobs: Callable[[], Any]) -> None:
    """Run one job after the other."""
    for job in jobs:
        job()


def classification(sizes: Sizes, device: str) -> Iterator[Comparison]:
    """Yield the loss of token classification, with its gradient to the logits."""
    images = sizes.classification_batch
    _, model = build_both("TokenClassificationModel", sizes, device, sizes.layers[0]).values()
    model.textual = nn.Identity()
    length = sizes.caption_lengths[0]
    captions = list(
        torch.randint(SPECIAL_TOKENS, sizes.vocabulary, (images, length), device=device)
    )
    logits = torch.randn(images, sizes.vocabulary, device=device, requires_grad=True)
    alone = {
        PLAIN: partial(step, model, partial(classify_plainly, logits, captions)),
        OURS: partial(step, model, losses_alone(model, logits, captions)),
    }
    yield Comparison(f"classification loss, {images} images", alone, {})


def classify_plainly(logits: Tensor, captions: list[Tensor]) -> dict[str, Tensor]:
    """Return the loss, one image after the other."""
    log_probabilities, total = logits.log_softmax(dim=1), logits.new_zeros(())
    for index, caption in enumerate(captions):
        labels = [label for label in caption.unique() if label not in range(SPECIAL_TOKENS)]
        total = total - log_probabilities[index, labels].mean()
    return {"classification": total / len(captions)}


def losses_alone(
    model: nn.Module, grid: Tensor, captions: list[Tensor]
) -> Callable[[], dict[str, Tensor]]:
    """Return the model's own losses as a function, with the features given."""
    model.backbone = GivenFeatures(grid)
    no_image = torch.zeros(3, 1, 1, device=grid.device)
    return partial(model, [{"image": no_image, "caption_tokens": caption} for caption in captions])


def step(model: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> tuple[Tensor, ...]:
    """Go forward and backward; return the losses."""
    model.zero_grad()
    found = tuple(losses().values())
    torch.stack(found).sum().backward()
    return tuple(loss.detach() for loss in found)


def build_both(architecture: str, sizes: Sizes, device: str, layers: int) -> dict[str, nn.Module]:
    """Build a model as Detectron2 does and as our Trainer does, with the same weights."""
    cfg = config(architecture, sizes, device, layers)
    torch.manual_seed(0)
    plain, ours = build_model(cfg), Trainer.build_model(cfg)
    ours.load_state_dict(plain.state_dict())
    return {PLAIN: plain, OURS: ours}


def config(architecture: str, sizes: Sizes, device: str, layers: int) -> CfgNode:
    """Return the config of a published model, except for the sizes and dropout."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = device, architecture
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_caption_resnet_backbone", 0
    cfg.MODEL.RESNETS.update(
        {**sizes.resnet, "NORM": "BN", "STRIDE_IN_1X1": False, "OUT_FEATURES": ["res5"]}
    )
    heads = {"ATTENTION_HEADS": max(sizes.hidden // 64, 1), "FEEDFORWARD_SIZE": 4 * sizes.hidden}
    cfg.MODEL.TEXTUAL.update({"VOCAB_SIZE": sizes.vocabulary, "HIDDEN_SIZE": sizes.hidden, **heads})
    cfg.MODEL.TEXTUAL.NUM_LAYERS, cfg.MODEL.TEXTUAL.DROPOUT = layers, 0.0
    return cfg


def draw_grid(model: nn.Module, sizes: Sizes, images: int) -> Tensor:
    """Return random features of the shape that a backbone gives."""
    channels = model.textual.visual_projection.in_features
    return torch.randn(
        images, channels, sizes.image // 32, sizes.image // 32, device=model.device
    ).relu()


def backbone_jobs(
    models: dict[str, nn.Module], sizes: Sizes, images: int
) -> dict[str, Callable[[], None]]:
    """Return a job for each model's backbone on a batch, in training or evaluation mode."""
    batch = torch.randn(images, 3, sizes.image, sizes.image, device=models[OURS].device)
    return {name: partial(run_backbone, model.backbone, batch) for name, model in models.items()}


def run_backbone(backbone: nn.Module, batch: Tensor) -> None:
    """Go forward, and in training backward."""
    with torch.set_grad_enabled(backbone.training):
        grid = backbone(batch)["res5"]
    if backbone.training:
        backbone.zero_grad()
        grid.sum().backward()


COMPARISONS = {"decoding": decoding, "training": training, "classification": classification}


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
