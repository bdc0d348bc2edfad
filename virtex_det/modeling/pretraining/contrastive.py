"""Losses of images and their captions against those of other images: InfoNCE, and SigLIP's."""

import math
from typing import NamedTuple

import torch
from detectron2.utils import comm
from fvcore.nn.distributed import differentiable_all_gather
from torch import Tensor, nn
from torch.nn import functional as F

CONTRASTIVE_LOSSES = ("infonce", "sigmoid")


def contrastive_losses(
    images: Tensor,
    captions: Tensor,
    temperature: float,
    owners: Tensor | None = None,
    *,
    all_processes: bool = False,
) -> Tensor:
    """Return the InfoNCE loss of each caption and its image: the mean of both directions.

    One direction picks the image's caption among the captions of other images, the other the
    caption's image among all images. Other captions of the same image are left out.

    Args:
        images: (n, size), of any norm.
        captions: (m, size).
        temperature: divides the cosine similarities.
        owners: (m,) int64, the image of each caption; by default each image has one, in order.
        all_processes: compare with the images and captions of all processes; each process has n
            images and any number of captions.

    Returns:
        (m,).

    Example:
        >>> images = torch.eye(2)
        >>> contrastive_losses(images, images, temperature=0.1)
        tensor([4.5418e-05, 4.5418e-05])
    """
    images, captions = F.normalize(images, dim=1), F.normalize(captions, dim=1)
    owners = torch.arange(len(images), device=images.device) if owners is None else owners
    every = _all_pairs(images, captions, owners, all_processes)
    # shape: (m, all images), (m, all captions)
    to_images = captions @ every.images.T / temperature
    to_captions = images[owners] @ every.captions.T / temperature
    belongs = owners + every.first_image
    itself = torch.arange(len(captions), device=images.device) + every.first_caption
    is_other = (every.owners != belongs.unsqueeze(1)) & (every.owners >= 0)
    is_compared = is_other.scatter(1, itself.unsqueeze(1), True)
    to_captions = to_captions.masked_fill(~is_compared, -torch.inf)
    losses = [
        F.cross_entropy(to_captions, itself, reduction="none"),
        F.cross_entropy(to_images, belongs, reduction="none"),
    ]
    return torch.stack(losses).mean(dim=0)


class SigmoidContrast(nn.Module):
    """SigLIP's loss with its two learned numbers, the temperature and the bias (Zhai et al. 2023).

    Args:
        temperature: initial value; divides the cosine similarities. 0.1 in the paper.
        bias: initial value; -10 in the paper, whose batches have thousands of images. At
            -log(n - 1) for n images an untrained model expects one pair in n to belong together.
    """

    def __init__(self, temperature: float, bias: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(
        self,
        images: Tensor,
        captions: Tensor,
        owners: Tensor | None = None,
        *,
        all_processes: bool = False,
    ) -> Tensor:
        """Return the loss (n,) of each image; arguments as for `sigmoid_contrastive_losses`."""
        numbers = self.log_scale.exp(), self.bias
        return sigmoid_contrastive_losses(
            images, captions, *numbers, owners, all_processes=all_processes
        )


def sigmoid_contrastive_losses(
    images: Tensor,
    captions: Tensor,
    scale: Tensor,
    bias: Tensor,
    owners: Tensor | None = None,
    *,
    all_processes: bool = False,
) -> Tensor:
    """Return SigLIP's loss of each image: of every caption, whether it is the image's, summed up.

    Each pair is a binary decision of its own (Zhai et al. 2023, sec. 3.2). So an image's loss needs
    all captions, but not all images.

    Args:
        images: (n, size), of any norm.
        captions: (m, size).
        scale: multiplies the cosine similarities, the inverse of a temperature.
        bias: is added to the products.
        owners: (m,) int64, the image of each caption; by default each image has one, in order.
        all_processes: compare with the captions of all processes; each process has n images and any
            number of captions.

    Returns:
        (n,).

    Example:
        >>> images = torch.eye(2)
        >>> sigmoid_contrastive_losses(images, images, torch.tensor(10.0), torch.tensor(-5.0))
        tensor([0.0134, 0.0134])
    """
    images, captions = F.normalize(images, dim=1), F.normalize(captions, dim=1)
    places = torch.arange(len(images), device=images.device)
    every = _all_pairs(images, captions, places if owners is None else owners, all_processes)
    # In half precision a logit near -10 would be off by 0.03.
    # shape: (n, all captions)
    cosines = images @ every.captions.T
    logits = scale * cosines.to(torch.promote_types(cosines.dtype, torch.float32)) + bias
    is_pair = (places + every.first_image).unsqueeze(1) == every.owners
    losses = -F.logsigmoid(torch.where(is_pair, logits, -logits))
    return losses.where(every.owners >= 0, 0).sum(dim=1)


class _Pairs(NamedTuple):
    """The images and captions to compare with."""

    images: Tensor  # (all images, size)
    captions: Tensor  # (all captions, size)
    owners: Tensor  # (all captions,), the image of each caption; -1 where there is no caption
    first_image: int  # the first of this process
    first_caption: int


def _all_pairs(images: Tensor, captions: Tensor, owners: Tensor, all_processes: bool) -> _Pairs:
    """Return this process's images and captions, or those of all processes."""
    if not all_processes or comm.get_world_size() == 1:
        return _Pairs(images, captions, owners, 0, 0)
    most = torch.tensor(len(captions), device=images.device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    # Every process has to send equally many rows.
    lacking = int(most) - len(captions)
    first_image = len(images) * comm.get_rank()
    padded = F.pad(captions, (0, 0, 0, lacking))
    own = F.pad(owners + first_image, (0, lacking), value=-1)
    # A feature's gradient is the sum over the losses of all processes. So DDP's average of the
    # parameters' gradients is the gradient of one process with the whole batch.
    return _Pairs(
        images=torch.cat(differentiable_all_gather(images)),
        captions=torch.cat(differentiable_all_gather(padded)),
        owners=torch.cat(differentiable_all_gather(own)),
        first_image=first_image,
        first_caption=int(most) * comm.get_rank(),
    )
