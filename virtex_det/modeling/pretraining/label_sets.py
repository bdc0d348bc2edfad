"""Losses of a model that says which labels an image has, in no order."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.image_model import TargetLosses

# From logits and presence, both (images, labels), to the losses of the images.
LabelSetLoss = Callable[[Tensor, Tensor], TargetLosses]


def label_presence(labels: Sequence[Tensor], num_labels: int) -> Tensor:
    """Return bool (images, num_labels) from the labels of each image, int64 (n,), in any order, repeated or not.

    Raises:
        UserError: a label is none of the model's.
    """
    together = torch.cat([*labels])
    if len(together) and together.max() >= num_labels:
        raise UserError(
            f"An example has label {int(together.max())}, and the model has {num_labels} labels, counted from 0.\n"
            "Set MODEL.CLASSIFIER.NUM_CLASSES to the classes of DATASETS.TRAIN, or for tags "
            "MODEL.TAG_PREDICTION.NUM_TAGS 0, which reads their number from the file."
        )
    counts = torch.tensor([len(of_image) for of_image in labels], device=together.device)
    images = torch.arange(len(labels), device=together.device).repeat_interleave(counts)
    present = torch.zeros(len(labels), num_labels, dtype=torch.bool, device=together.device)
    present[images, together] = True
    return present


def equal_share_losses(logits: Tensor, present: Tensor) -> TargetLosses:
    """Return for each image with a label the cross-entropy with a distribution that gives its labels equal shares.

    It is the mean over the image's labels of their negative log-probability (VirTex, pretraining task ablations).
    """
    images = present.any(dim=1).nonzero().squeeze(1)
    # In half precision the shares of seven labels would sum to 0.998.
    precision = torch.promote_types(logits.dtype, torch.float32)
    shares = F.normalize(present[images].to(precision), p=1)
    return TargetLosses(F.cross_entropy(logits[images].to(precision), shares, reduction="none"), images)


def sigmoid_losses(logits: Tensor, present: Tensor) -> TargetLosses:
    """Return for each image the binary cross-entropies of all labels, summed.

    A sum: in a mean over thousands of labels, the few that an image has would hardly count.
    """
    losses = F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none").sum(dim=1)
    return TargetLosses(losses, torch.arange(len(losses), device=losses.device))


LABEL_SET_LOSSES: dict[str, LabelSetLoss] = {"softmax": equal_share_losses, "sigmoid": sigmoid_losses}
