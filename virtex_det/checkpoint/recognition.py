"""Which family the content of a file belongs to, and which of its tensors are the backbone's."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.formats import FORMATS, Format, Pixels
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.errors import UserError

_WRAPPING_MODULES = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile


class Weights(NamedTuple):
    """The tensors of a file and where a model's are among them."""

    format: Format
    tensors: dict[str, torch.Tensor]  # by their names in the file
    backbone: dict[str, str]  # canonical name -> name in the file
    rest: dict[str, str]  # name in a Detectron2 model -> name in the file

    def named(self, model_name: str) -> str | None:
        """Return the file's name for a model's tensor, None if the file has none for it."""
        canonical = from_detectron2(model_name)
        return self.rest.get(model_name) if canonical is None else self.backbone.get(canonical)

    @property
    def architecture(self) -> Architecture:
        """The network that the tensors belong to."""
        backbone = {canonical: self.tensors[name] for canonical, name in self.backbone.items()}
        return describe(backbone, self.format.stem, self.format.downsample)


def recognise(content: Any, path: str, family: str = "") -> Weights:
    """Find the family of what was read from a file, by the names in it.

    Args:
        content: what `read_file` returned.
        path: for the message.
        family: take it as this one, whatever the names say; "" for the first that fits.

    Raises:
        UserError: it belongs to no known family, or not to the one named; or there is none of that name.
    """
    entries = _named_entries(family) if family else FORMATS
    for wrapper in _wrappers(entries):
        tensors = unwrap(content, wrapper)
        for entry in entries:
            if wrapper in entry.wrappers and (family or _is_marked(entry, tensors)):
                weights = as_format(entry, tensors)
                if weights.backbone and _has_stem_of(weights):
                    return _with_own_facts(weights, content)
    raise UserError(
        f"{path} belongs to {f'no file of the family {family}' if family else 'no weights family known here'}; "
        "nothing was loaded.\n"
        f"Its first names: {', '.join(_first_names(content)) or f'none, it is a {type(content).__name__}'}\n"
        f"Known families: {', '.join(entry.name for entry in FORMATS)}\n"
        "To take it as one of them: MODEL.WEIGHTS_FORMAT NAME"
    )


def as_format(entry: Format, tensors: dict[str, torch.Tensor]) -> Weights:
    """Take tensors as those of the given family."""
    prefix = re.compile(entry.prefix)
    backbone: dict[str, str] = {}
    rest: dict[str, str] = {}
    for name in tensors:
        match = prefix.match(name)
        canonical = entry.rename(name[match.end() :]) if match else None
        if canonical is not None:
            backbone.setdefault(canonical, name)
        elif entry.detectron2_names:
            rest[name] = name
        elif entry.rename_rest and (renamed := entry.rename_rest(name)):
            rest[renamed] = name
    return Weights(entry, tensors, backbone, rest)


def unwrap(content: Any, wrapper: str) -> dict[str, torch.Tensor]:
    """Return the named tensors under a dotted key, without the ``module.`` that a file saved from DDP has."""
    for key in filter(None, wrapper.split(".")):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    for module in _WRAPPING_MODULES:
        if all(name.startswith(module) for name in tensors):
            tensors = {name.removeprefix(module): value for name, value in tensors.items()}
    return tensors


def _named_entries(family: str) -> tuple[Format, ...]:
    entries = tuple(entry for entry in FORMATS if family in (entry.name, *entry.also))
    if not entries:
        known = sorted({name for entry in FORMATS for name in (entry.name, *entry.also)})
        nearest = difflib.get_close_matches(family, known, cutoff=0.4)
        raise UserError(
            f"There is no weights family {family!r} (MODEL.WEIGHTS_FORMAT). "
            f"The nearest: {', '.join(nearest) or 'none'}; all: {', '.join(known)}"
        )
    return tuple(sorted(entries, key=lambda entry: entry.name != family))  # then those that it may look like


def _wrappers(entries: Iterable[Format]) -> list[str]:
    return list(dict.fromkeys(wrapper for entry in entries for wrapper in entry.wrappers))


def _is_marked(entry: Format, tensors: Mapping[str, torch.Tensor]) -> bool:
    names = "\n".join(tensors)

    def found(pattern: str) -> bool:
        return re.search(pattern, names, re.MULTILINE) is not None

    return all(map(found, entry.marks)) and not any(map(found, entry.absent))


def _has_stem_of(weights: Weights) -> bool:
    # CLIP's blocks have torchvision's names; what tells them apart is three convolutions in the stem.
    is_deep = "stem.conv2.weight" in weights.backbone
    return weights.format.stem is None or is_deep == (weights.format.stem != "basic")


def _with_own_facts(weights: Weights, content: Any) -> Weights:
    """Add what a checkpoint of ours says of the pixels, strides and pools that it was trained with."""
    if not weights.format.detectron2_names:
        return weights
    pixels, network = content.get("pixels"), content.get("network")
    facts: dict[str, Any] = {}
    if isinstance(pixels, Mapping) and set(pixels) == set(Pixels._fields):
        facts["pixels"] = (Pixels(pixels["format"], tuple(pixels["mean"]), tuple(pixels["std"])),)
    if isinstance(network, Mapping):
        facts |= {key: network[key] for key in ("stem", "downsample", "stride_in_1x1") if key in network}
    return weights._replace(format=weights.format._replace(**facts))


def _first_names(content: Any) -> list[str]:
    for wrapper in _wrappers(FORMATS):
        if tensors := unwrap(content, wrapper):
            return list(tensors)[:5]
    return [str(key) for key in content][:5] if isinstance(content, Mapping) else []
