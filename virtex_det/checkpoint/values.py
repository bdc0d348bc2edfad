"""Checks of a tensor's values before they are copied into a model."""

import re

import torch

from virtex_det.checkpoint.names import COUNTER

_CONVOLUTION = re.compile(r"(?:.*\.)?(?:stem\.conv\d|res[2-5]\.\d+\.(?:conv\d|shortcut))\.weight")
_KNOWN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def problem(name: str, tensor: torch.Tensor, target: torch.Tensor) -> str | None:
    """Return why a tensor cannot be copied into a model; None if it can.

    Refused are other dtypes, NaN and infinities, values beyond the model's dtype, negative
    variances, a ResNet's convolution whose weights are all equal, and expanded views. The values
    are read once.

    Args:
        name: in the model.
        tensor: of the file, with the target's shape.
        target: the model's tensor.
    """
    return _wrong_type(name, tensor, target) or _wrong_values(name, tensor, target)


def _wrong_type(name: str, tensor: torch.Tensor, target: torch.Tensor) -> str | None:
    if tensor.layout != torch.strided or tensor.is_quantized:
        return (
            f"{'quantised' if tensor.is_quantized else 'sparse'}; convert it to a plain float "
            "tensor"
        )
    kind = str(tensor.dtype).removeprefix("torch.")
    if name.endswith(COUNTER):
        return None if _is_count(tensor) else f"{kind}, not a count of batches from 0"
    if target.is_floating_point():
        hint = (
            "; view the bits of bfloat16 as bfloat16 first" if kind in ("uint16", "int16") else ""
        )
        return None if tensor.dtype in _KNOWN else f"{kind}, not float{hint}"
    return (
        None
        if tensor.dtype == target.dtype
        else f"{kind}, not {str(target.dtype).removeprefix('torch.')}"
    )


def _is_count(tensor: torch.Tensor) -> bool:
    if tensor.dtype not in (*WHOLE_NUMBERS, *_KNOWN):
        return False
    values = tensor.double()
    return tensor.is_meta or bool(
        ((values >= 0) & (values < 2**62) & (values == values.round())).all()
    )


def _wrong_values(name: str, tensor: torch.Tensor, target: torch.Tensor) -> str | None:
    if (
        not target.is_floating_point()
        or not tensor.numel()
        or name.endswith(COUNTER)
        or tensor.is_meta
    ):
        return None
    low, high = (float(value) for value in torch.aminmax(tensor))
    if low != low or high != high:
        return f"NaN in {int(tensor.isnan().sum()):,} of {tensor.numel():,} values"
    largest = torch.finfo(target.dtype).max
    if max(-low, high) > largest and (target.is_meta or bool(target.isfinite().all())):
        if float("inf") in (-low, high):
            return f"infinite in {int(tensor.isinf().sum()):,} of {tensor.numel():,} values"
        return (
            f"values up to {max(-low, high):.3g}, beyond {str(target.dtype).removeprefix('torch.')}"
        )
    if name.endswith("running_var") and low < 0:
        return f"a variance of {low:.3g}"
    if name.endswith("running_var") and high == 0 and tensor.numel() > 1:
        return f"a variance of 0 in all of its {tensor.numel():,} channels"
    if name.endswith("weight") and tensor.dim() > 1 and 0 in _strides(tensor):
        return "an expanded view, which repeats values that the file has once"
    if low == high and tensor.numel() > 1 and _CONVOLUTION.fullmatch(name):
        return f"a convolution with {low:g} in all of its {tensor.numel():,} weights"
    return None


def _strides(tensor: torch.Tensor) -> list[int]:
    """Return the strides of the dimensions that are longer than 1."""
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
