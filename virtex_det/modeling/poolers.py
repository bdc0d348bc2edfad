"""ROIAlign on CPU as one gather: each output bin is a weighted sum of rows in a table of pixels."""

from typing import NamedTuple

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

# Making the table costs time per pixel, so it pays from this many bins per pixel on (measured).
_BINS_PER_PIXEL_WORTH_A_TABLE = 1 / 8
# A list of this many pixels takes about 0.7 GB; detectors with FPN or C4 stay far below it.
_LONGEST_LIST = 2**24


def use_gather_roi_align(model: nn.Module) -> nn.Module:
    """Replace each ROIAlign in a model's ROI poolers by `GatherROIAlign`; return the model."""
    poolers = [module for module in model.modules() if isinstance(module, ROIPooler)]
    for pooler in poolers:
        for level, align in enumerate(pooler.level_poolers):
            if isinstance(align, ROIAlign):
                pooler.level_poolers[level] = GatherROIAlign(
                    align.output_size, align.spatial_scale, align.sampling_ratio, align.aligned
                )
    return model


class GatherROIAlign(ROIAlign):
    """ROIAlign (He et al. 2017, sec. 3) that trains 3 to 10 times faster on CPU than torchvision's.

    The bilinear samples of one bin lie close together and share pixels, and a pixel's weight is the
    product of one weight per axis. So the samples of a bin are merged into a window of weighted
    pixels, which `embedding_bag` sums. Results equal torchvision's up to float32 rounding.
    On GPUs, for few regions, and in a graph that is traced or exported, torchvision's operator runs
    instead.

    Args:
        output_size: bins per region, (height, width).
        spatial_scale: feature map pixels per image pixel.
        sampling_ratio: samples per bin and axis; 0 for one per feature map pixel of the bin.
        aligned: shift by half a pixel, so that coordinates are those of pixel centres.

    Example:
        >>> align = GatherROIAlign((7, 7), spatial_scale=1 / 16, sampling_ratio=0)
        >>> features = torch.zeros(1, 256, 50, 68)
        >>> rois = torch.tensor([[0.0, 16.0, 16.0, 160.0, 240.0]])  # image, x0, y0, x1, y1
        >>> align(features, rois).shape
        torch.Size([1, 256, 7, 7])
    """

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pool regions.

        Args:
            features: (images, channels, height, width).
            rois: (regions, 5): image index, x0, y0, x1, y1 in image pixels. No gradient flows to
                them.

        Returns:
            (regions, channels, *output_size), in the features' dtype; half precision is computed in
            float32.
        """
        dtype = torch.promote_types(features.dtype, torch.float32)
        wide, rois = features.to(dtype), rois.detach().to(dtype)
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return self._loop(wide, rois).to(features.dtype)
        bins = len(rois) * self.output_size[0] * self.output_size[1]
        worth_a_table = bins > features[:, 0].numel() * _BINS_PER_PIXEL_WORTH_A_TABLE
        pool = self._gather if worth_a_table and features.device.type == "cpu" else self._loop
        return pool(wide, rois).to(features.dtype)

    def _loop(self, features: Tensor, rois: Tensor) -> Tensor:
        return roi_align(
            features, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )

    def _gather(self, features: Tensor, rois: Tensor) -> Tensor:
        images, channels, height, width = features.shape
        boxes = rois[:, 1:] * self.spatial_scale - (0.5 if self.aligned else 0.0)
        extent = boxes[:, 2:] - boxes[:, :2]
        if not self.aligned:
            extent = extent.clamp(min=1.0)
        bins_down, bins_across = self.output_size
        columns = _windows(boxes[:, 0], extent[:, 0], bins_across, self.sampling_ratio, width)
        rows = _windows(boxes[:, 1], extent[:, 1], bins_down, self.sampling_ratio, height)
        if self._is_too_long(rows, columns):
            return self._loop(features, rois)
        pixels, weights, offsets = _bags(rois[:, 0].long() * height * width, rows, columns, width)

        # shape: (images * height * width, channels)
        table = features.permute(0, 2, 3, 1).reshape(images * height * width, channels).contiguous()
        # shape: (regions * bins_down * bins_across, channels)
        pooled = F.embedding_bag(pixels, table, offsets, mode="sum", per_sample_weights=weights)
        return pooled.view(len(rois), *self.output_size, channels).permute(0, 3, 1, 2)

    def _is_too_long(self, rows: "_Windows", columns: "_Windows") -> bool:
        """Return whether the windows hold too many pixels: for memory, or beside the samples."""
        pixels = int((rows.size.sum(dim=1) * columns.size.sum(dim=1)).sum())
        read = rows.size[0].numel() * columns.size.numel() * (2 * self.sampling_ratio) ** 2
        return pixels > _LONGEST_LIST or (self.sampling_ratio > 0 and pixels > 4 * read)


class _Windows(NamedTuple):
    """The pixels that the samples of each bin read along one axis: one run per region and bin."""

    first: Tensor  # (regions, bins): first pixel of the run
    size: Tensor  # (regions, bins): length of the run
    weights: Tensor  # (regions, bins, longest run): zero after the run's end


def _windows(
    start: Tensor, extent: Tensor, bins: int, sampling_ratio: int, length: int
) -> _Windows:
    """Merge the bilinear samples of each bin along one axis.

    Args:
        start: (regions,), first coordinate of each region on the feature map.
        extent: (regions,), its length in pixels.
        bins: bins per region.
        sampling_ratio: samples per bin; 0 for one per pixel of the bin.
        length: pixels of the feature map.
    """
    bin_size = (extent / bins)[:, None, None]
    fixed = torch.full_like(bin_size, sampling_ratio)
    samples = fixed if sampling_ratio > 0 else bin_size.ceil().clamp(min=0)
    divisor = samples.clamp(min=1)
    sample = torch.arange(int(divisor.max()), dtype=start.dtype)
    # A region with fewer samples than the longest repeats its last one.
    within_bin = (torch.minimum(sample, divisor - 1) + 0.5) / divisor
    bin_index = torch.arange(bins, dtype=start.dtype)[:, None]
    # shape: (regions, bins, samples)
    position = start[:, None, None] + bin_size * (bin_index + within_bin)
    counts = (sample < samples) & (position >= -1) & (position <= length)

    position = position.clamp(0, length - 1)
    # The pixel below the sample, such that its neighbour above is on the map, too.
    below = position.floor().clamp(max=max(length - 2, 0))
    weight_above = (position - below) * counts / divisor
    weight_below = counts / divisor - weight_above

    first, last = below.aminmax(dim=2)
    slot = (below - first[:, :, None]).long()
    longest = int((last - first).max()) + 2
    # shape: (regions, bins, longest)
    weights = start.new_zeros(*first.shape, longest)
    weights.scatter_add_(2, slot, weight_below).scatter_add_(2, slot + 1, weight_above)
    return _Windows(first.long(), (last - first + 2).clamp(max=length).long(), weights)


def _bags(
    image_start: Tensor, rows: _Windows, columns: _Windows, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """List the pixels of every bin's window, row after row, in the form that `embedding_bag` takes.

    Args:
        image_start: (regions,): table index of the first pixel of a region's image.
        rows: windows along the height.
        columns: windows along the width.
        width: pixels per row of the feature map.

    Returns:
        Table index and weight of each pixel, bin after bin; and the offset at which each bin
        starts.
    """
    across, down = columns.first.shape[1], rows.first.shape[1]
    row_start = image_start[:, None, None] + rows.first[:, :, None] * width
    corner = (row_start + columns.first[:, None, :]).flatten()
    height_of_bin = rows.size[:, :, None].expand(-1, -1, across).flatten()
    width_of_bin = columns.size[:, None, :].expand(-1, down, -1).flatten()

    # One line per row of pixels in a bin's window.
    bin_of_line = torch.repeat_interleave(height_of_bin)
    row = torch.arange(len(bin_of_line)) - _starts(height_of_bin)[bin_of_line]
    band = bin_of_line // across  # region and vertical bin
    column = band // down * across + bin_of_line % across  # region and horizontal bin
    line_weight = rows.weights.flatten()[band * rows.weights.shape[2] + row]
    line_length = columns.size.flatten()[column]
    line_start = _starts(line_length)

    # One entry per pixel of a line.
    line = torch.repeat_interleave(line_length)
    entry = torch.arange(len(line))
    pixels = entry + (corner[bin_of_line] + row * width - line_start)[line]
    weight_start = column * columns.weights.shape[2] - line_start
    column_weight = columns.weights.flatten()[entry + weight_start[line]]
    return pixels, column_weight * line_weight[line], _starts(height_of_bin * width_of_bin)


def _starts(lengths: Tensor) -> Tensor:
    """Return the start of each of several consecutive runs."""
    return lengths.cumsum(0) - lengths
