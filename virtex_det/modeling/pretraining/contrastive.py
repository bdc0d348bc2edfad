"""Losses of images and their captions against those of other images: InfoNCE, and SigLIP's."""

import math
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

CONTRASTIVE_LOSSES = ("infonce", "sigmoid")


def contrastive_losses(
    images: Tensor, captions: Tensor, temperature: float, *, all_processes: bool = False
) -> Tensor:
    """Return the InfoNCE loss of each image and its caption: the mean of both directions.

    One direction picks the image's caption among all captions, the other the caption's image among
    all images.

    Args:
        images: (n, size), of any norm.
        captions: (n, size), in the order of the images.
        temperature: divides the cosine similarities.
        all_processes: compare with the images and captions of all processes; each process has n.

    Returns:
        (n,).

    Example:
        >>> images = torch.eye(2)
        >>> contrastive_losses(images, images, temperature=0.1)
        tensor([4.5418e-05, 4.5418e-05])
    """
    # shape: (2, n, size)
    own = F.normalize(torch.stack([images, captions]), dim=2)
    # shape: (2, all, size)
    every, first = own, 0
    if all_processes and comm.get_world_size() > 1:
        every, first = _Gather.apply(own), len(images) * comm.get_rank()
    pairs = torch.arange(first, first + len(images), device=images.device)
    # shape: (2, n, all)
    logits = own @ every.flip(0).transpose(1, 2) / temperature
    losses = [F.cross_entropy(each, pairs, reduction="none") for each in logits]
    return torch.stack(losses).mean(dim=0)


class SigmoidContrast(nn.Module):
    """SigLIP's loss with its two learned numbers, the temperature and the bias (Zhai et al. 2023).

    Args:
        temperature: initial value; divides the cosine similarities. 0.1 in the paper.
        bias: initial value; -10 in the paper, whose batches have thousands of images. At
            -log(n - 1) for n images the expected number of pairs that seem to belong together is
            that of those that do.
    """

    def __init__(self, temperature: float, bias: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, images: Tensor, captions: Tensor, *, all_processes: bool = False) -> Tensor:
        """Return the loss (n,) of each image; arguments as for `sigmoid_contrastive_losses`."""
        return sigmoid_contrastive_losses(
            images, captions, self.log_scale.exp(), self.bias, all_processes=all_processes
        )


def sigmoid_contrastive_losses(
    images: Tensor, captions: Tensor, scale: Tensor, bias: Tensor, *, all_processes: bool = False
) -> Tensor:
    """Return SigLIP's loss of each image: of every caption, whether it is the image's, summed up.

    Each pair is a binary decision of its own (Zhai et al. 2023, sec. 3.2). So an image's loss needs
    all captions, but not all images.

    Args:
        images: (n, size), of any norm.
        captions: (n, size), in the order of the images.
        scale: multiplies the cosine similarities, the inverse of a temperature.
        bias: is added to the products.
        all_processes: compare with the captions of all processes; each process has n.

    Returns:
        (n,).

    Example:
        >>> images = torch.eye(2)
        >>> sigmoid_contrastive_losses(images, images, torch.tensor(10.0), torch.tensor(-5.0))
        tensor([0.0134, 0.0134])
    """
    own = F.normalize(images, dim=1)
    every, first = F.normalize(captions, dim=1), 0
    if all_processes and comm.get_world_size() > 1:
        every, first = _Gather.apply(every.unsqueeze(0))[0], len(images) * comm.get_rank()
    # In half precision a logit near -10 would be off by 0.03.
    # shape: (n, all)
    cosines = own @ every.T
    logits = scale * cosines.to(torch.promote_types(cosines.dtype, torch.float32)) + bias
    belongs = torch.arange(first, first + len(own), device=own.device).unsqueeze(1)
    is_pair = belongs == torch.arange(len(every), device=own.device)
    return -F.logsigmoid(torch.where(is_pair, logits, -logits)).sum(dim=1)


class _Gather(torch.autograd.Function):
    """Concatenate the features (2, n, size) of all processes along n.

    The gradient of a process's features is the sum over the losses of all processes. So DDP's
    average of the parameters' gradients is the gradient of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(comm.get_world_size())]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        torch.distributed.all_reduce(total)
        return total.chunk(comm.get_world_size(), dim=1)[comm.get_rank()]
