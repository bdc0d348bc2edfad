"""Losses of a model that predicts an unordered set of labels per image."""

from collections.abc import Callable, Sequence

import torch
from detectron2.utils import comm
from torch import Tensor, nn
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
    return weighted_share_losses(logits, present)


def weighted_share_losses(logits: Tensor, weights: Tensor) -> TargetLosses:
    """Return each image's softmax cross-entropy with a target of shares in proportion to weights.

    Images whose weights are all 0 have no loss.

    Args:
        logits: (images, labels).
        weights: (images, labels), 0 or above; 0 where the image does not have the label.
    """
    images = (weights > 0).any(dim=1).nonzero().squeeze(1)
    # In half precision the shares of seven labels would sum to 0.998, not 1.
    precision = torch.promote_types(logits.dtype, torch.float32)
    shares = F.normalize(weights[images].to(precision), p=1)
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


class RareLabelsLoss(nn.Module):
    """SuperClass's loss: rare labels have larger shares of the target (Huang et al. 2024).

    A label's weight is log((N + 1) / (n + 1)): training has seen N images, this batch included, and
    n of them had the label. A label of all images has the weight 0. The authors' code
    (x-cls/superclass, ``ClsLoss``) adds up the fractions of batches; multiplied by the batch size,
    its formula is this one. In evaluation the counts stay.

    Args:
        num_labels: labels of the model.

    Example:
        >>> loss = RareLabelsLoss(num_labels=3)
        >>> present = torch.tensor([[True, True, False], [True, False, True]])
        >>> values, images = loss(torch.zeros(2, 3), present)
        >>> loss.weights()  # of two images both had label 0
        tensor([0.0000, 0.4055, 0.4055])
    """

    images_seen: Tensor
    label_counts: Tensor

    def __init__(self, num_labels: int):
        super().__init__()
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("label_counts", torch.zeros(num_labels, dtype=torch.int64))

    def forward(self, logits: Tensor, present: Tensor) -> TargetLosses:
        """Return the loss of each image; in training, count its labels first.

        Args:
            logits: (images, labels).
            present: bool (images, labels).
        """
        if self.training:
            self._count(present)
        return weighted_share_losses(logits, present * self.weights())

    def weights(self) -> Tensor:
        """Return the weight (labels,) of each label."""
        return ((self.images_seen + 1) / (self.label_counts + 1)).log()

    @torch.no_grad()
    def _count(self, present: Tensor) -> None:
        """Count the images and labels of the batch of all processes."""
        images = torch.tensor([len(present)], device=present.device)
        counts = torch.cat([images, present.sum(dim=0)])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(counts)
        self.images_seen += counts[0]
        self.label_counts += counts[1:]
