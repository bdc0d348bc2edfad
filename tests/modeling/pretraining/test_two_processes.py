"""Two processes have the losses and gradients of one with the whole batch, whatever the task."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tests.modeling.pretraining.conftest import Examples, images, small_config
from tests.processes import launch_processes

pytestmark = pytest.mark.slow

CAPTIONS = [[1, 5, 9, 7, 2], [1, 6, 2], [1, 5, 2], [1, 8, 8, 4, 9, 2]]
# Token, x and y, by the length of the caption. With one caption per image, one process has three
# tokens with points and the other one.
POINTS = {5: [(1, 0.1, 0.1), (1, 0.9, 0.1), (3, 0.2, 0.9)], 3: [(1, 0.6, 0.6)], 6: []}


class Found(NamedTuple):
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]


def captioned(task: str) -> Examples:
    """Images with one caption each, or one to three, so that processes have different numbers."""
    if task not in SEVERAL:
        of_image = map(_of_caption, CAPTIONS)
        return [image | caption for image, caption in zip(images(4), of_image, strict=True)]
    examples = []
    for number, image in enumerate(images(len(CAPTIONS))):
        captions = [CAPTIONS[(number + step) % 4] for step in range(SEVERAL_OF[number])]
        examples.append(image | {"by_caption": [_of_caption(tokens) for tokens in captions]})
    return examples


def _of_caption(tokens: list[int]) -> dict[str, Tensor]:
    """Return the targets of all tasks; the shortest captions have no region."""
    labels = torch.tensor([0, tokens[1], *[0] * (len(tokens) - 2)])
    targets = {
        "caption_tokens": torch.tensor(tokens),
        "masked_labels": labels,
        "tags": torch.tensor(tokens[1:-1]),
        "trace_points": torch.tensor(POINTS[len(tokens)]).view(-1, 3),
    }
    for text in ("caption", "referring", "grounded") if len(tokens) > 3 else ("caption",):
        targets |= {
            f"{text}_tokens": torch.tensor(tokens),
            f"{text}_labels": torch.tensor([0, *tokens[1:]]),
        }
    return targets


# Meta-architecture and options.
TASKS: dict[str, tuple[str, ...]] = {
    "parallel captioning": (
        *("MODEL.META_ARCHITECTURE", "CaptioningModel"),
        *("MODEL.TEXTUAL.PARALLEL_FRACTION", "0.5"),
    ),
    "parallel bicaptioning": (
        *("MODEL.META_ARCHITECTURE", "BicaptioningModel"),
        *("MODEL.TEXTUAL.PARALLEL_FRACTION", "0.5"),
    ),
    "three texts": (
        *("MODEL.META_ARCHITECTURE", "LocCaModel", "MODEL.TEXTUAL.PARALLEL_FRACTION", "0.5"),
    ),
    "rare tokens": (
        *("MODEL.META_ARCHITECTURE", "TokenClassificationModel"),
        *("MODEL.TOKEN_CLASSIFICATION.WEIGHTING", "rare"),
    ),
    "contrastive and localization": ("MODEL.META_ARCHITECTURE", "LocTexModel"),
    "localization by cross-entropy on two feature maps": (
        *("MODEL.META_ARCHITECTURE", "LocTexModel", "MODEL.LOCTEX.LOCALIZATION_WEIGHT", "0.7"),
        *("MODEL.LOCTEX.LOCALIZATION_LOSS", "cross_entropy"),
        *("MODEL.LOCTEX.LOCALIZATION_FEATURES", "('res5', 'res4')"),
        *("MODEL.RESNETS.OUT_FEATURES", "['res4', 'res5']"),
    ),
    "sigmoid contrastive": (
        *("MODEL.META_ARCHITECTURE", "LocTexModel", "MODEL.LOCTEX.LOCALIZATION_WEIGHT", "0.0"),
        *("MODEL.LOCTEX.CONTRASTIVE_LOSS", "sigmoid", "MODEL.LOCTEX.SIGMOID_BIAS", "-2.0"),
    ),
}
_ICMLM = (
    *("MODEL.META_ARCHITECTURE", "ICMLMModel", "MODEL.ICMLM.ATTENTION_HEADS", "2"),
    *("MODEL.ICMLM.FEEDFORWARD_SIZE", "32", "MODEL.ICMLM.DROPOUT", "0.0"),
    *("MODEL.ICMLM.TAG_WEIGHT", "0.5", "MODEL.TAG_PREDICTION.NUM_TAGS", "40"),
)
# The same with several captions of an image.
SEVERAL: dict[str, tuple[str, ...]] = {
    "several captions, parallel bicaptioning": TASKS["parallel bicaptioning"],
    "several captions, three texts": TASKS["three texts"],
    "several captions, ICMLM tfm": (*_ICMLM, "MODEL.ICMLM.HEAD", "tfm"),
    "several captions, ICMLM att-fc": (*_ICMLM, "MODEL.ICMLM.HEAD", "att_fc"),
    "several captions, sigmoid contrastive": TASKS["sigmoid contrastive"],
    "several captions, localization": TASKS["contrastive and localization"],
}
TASKS |= SEVERAL
# Captions of each image.
SEVERAL_OF = (2, 1, 3, 1)


def config(task: str) -> CfgNode:
    cfg = small_config()
    cfg.merge_from_list([*TASKS[task]])
    return cfg


def losses_and_gradients(task: str, examples: Examples) -> Found:
    torch.manual_seed(0)
    model = build_model(config(task)).double()
    model.backbone.eval()  # no image depends on the others
    model.visual_features = lambda batched, of=model.visual_features: of(
        [{"image": example["image"].double()} for example in batched]
    )
    distributed = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    torch.manual_seed(comm.get_rank())  # each process has its own seed, as in training
    losses = distributed(examples)
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return Found({name: loss.detach() for name, loss in losses.items()}, gradients)


def half_of_each_task(folder: str) -> None:
    """Process r of N has the examples r, r + N, ..., as the loader gives them."""
    rank = comm.get_rank()
    found = {task: tuple(losses_and_gradients(task, captioned(task)[rank::2])) for task in TASKS}
    torch.save(found, f"{folder}/{rank}.pth")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """What each of the two processes has found, by task."""
    folder: Path = tmp_path_factory.mktemp("halves")
    launch_processes(half_of_each_task, str(folder), processes=2)
    saved = [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]
    return [{task: Found(*found) for task, found in each.items()} for each in saved]


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_are_one_with_the_whole_batch(halves, task):
    losses, gradients = losses_and_gradients(task, captioned(task))
    first, second = (half[task] for half in halves)
    for name, loss in losses.items():
        torch.testing.assert_close((first.losses[name] + second.losses[name]) / 2, loss)
    torch.testing.assert_close(first.gradients, gradients)
    torch.testing.assert_close(second.gradients, gradients)
    assert all(gradient.any() for gradient in gradients.values())
