"""Deep stems and average pools: layers of CLIP's ResNets and of ResNet-C, D and S."""

from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.nn import functional as F


class DeepStem(CNNBlockBase):
    """The stem of ResNet-C (He et al. 2019, sec. 4.2) and CLIP: three 3x3 convolutions and a pool.

    The first convolution has stride 2.

    Args:
        in_channels: channels of the image.
        out_channels: of the third convolution; the other two have half as many.
        norm: a name that Detectron2's `get_norm` knows, for each convolution.
        pool: halves height and width.

    Example:
        >>> import torch
        >>> stem = DeepStem(3, 64, norm="BN", pool=nn.AvgPool2d(2))
        >>> stem(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 64, 56, 56])
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, pool: nn.Module):
        super().__init__(in_channels, out_channels, 4)
        half = out_channels // 2
        self.conv1 = _conv3x3(in_channels, half, norm, stride=2)
        self.conv2 = _conv3x3(half, half, norm)
        self.conv3 = _conv3x3(half, out_channels, norm)
        self.pool = pool

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of (N, in_channels, H, W): (N, out_channels, H / 4, W / 4)."""
        features = image
        for conv in (self.conv1, self.conv2, self.conv3):
            features = F.relu_(conv(features))
        return self.pool(features)


class PooledConv2d(Conv2d):
    """A 1x1 convolution after an average pool instead of a stride; parameters keep their names.

    Args:
        conv: the 1x1 convolution whose weight and norm this layer takes over.
        pool: runs before it.
    """

    def __init__(self, conv: Conv2d, pool: nn.AvgPool2d):
        super().__init__(
            conv.in_channels, conv.out_channels, kernel_size=1, bias=False, norm=conv.norm
        )
        self.weight = conv.weight
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Pool, convolve, normalise."""
        return super().forward(self.pool(x))


def _conv3x3(in_channels: int, out_channels: int, norm: str, stride: int = 1) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    c2_msra_fill(conv)
    return conv
