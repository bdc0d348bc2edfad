"""Losses of a model that predicts an unordered set of labels per image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.image_model import TargetLosses

# Maps logits and presence, both (images, labels), to the losses of the images.
LabelSetLoss = Callable[[Tensor, Tensor], TargetLosses]


def label_presence(labels: Sequence[Tensor], num_labels: int) -> Tensor:
    """Return bool (images, num_labels): whether an image has a label.

    Args:
        labels: int64 (n,) of each image, in any order; repeats count once.
        num_labels: labels of the model.

    Raises:
        UserError: a label is num_labels or above.

    Example:
        >>> label_presence([torch.tensor([2, 0, 2]), torch.tensor([1])], num_labels=3)
        tensor([[ True, False,  True],
                [False,  True, False]])
    """
    together = torch.cat([*labels])
    if len(together) and together.max() >= num_labels:
        raise UserError(
            f"An example has label {int(together.max())}, but the model has {num_labels} labels, "
            "counted from 0.\n"
            "Set MODEL.CLASSIFIER.NUM_CLASSES to the classes of DATASETS.TRAIN, or for tags "
            "MODEL.TAG_PREDICTION.NUM_TAGS 0, which reads their number from the file."
        )
    counts = torch.tensor([len(of_image) for of_image in labels], device=together.device)
    images = torch.arange(len(labels), device=together.device).repeat_interleave(counts)
    present = torch.zeros(len(labels), num_labels, dtype=torch.bool, device=together.device)
    present[images, together] = True
    return present


def equal_share_losses(logits: Tensor, present: Tensor) -> TargetLosses:
    """Return each image's softmax cross-entropy with a target that its labels share equally.

    It is the mean negative log-probability of the image's labels (VirTex, pretraining task
    ablations). Images without a label have no loss.
    """
    images = present.any(dim=1).nonzero().squeeze(1)
    # In half precision the shares of seven labels would sum to 0.998, not 1.
    precision = torch.promote_types(logits.dtype, torch.float32)
    shares = F.normalize(present[images].to(precision), p=1)
    return TargetLosses(
        F.cross_entropy(logits[images].to(precision), shares, reduction="none"), images
    )


def sigmoid_losses(logits: Tensor, present: Tensor) -> TargetLosses:
    """Return the sum over all labels of the binary cross-entropy, for each image.

    In a mean over thousands of labels, the few labels of an image would hardly count.
    """
    losses = F.binary_cross_entropy_with_logits(
        logits, present.to(logits.dtype), reduction="none"
    ).sum(dim=1)
    return TargetLosses(losses, torch.arange(len(losses), device=losses.device))


LABEL_SET_LOSSES: dict[str, LabelSetLoss] = {
    "softmax": equal_share_losses,
    "sigmoid": sigmoid_losses,
}
