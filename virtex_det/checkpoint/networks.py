"""Finding the networks in the content of a file: each has one prefix in one mapping of tensors."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from virtex_det.checkpoint.values import WHOLE_NUMBERS

TOP_LEVEL = "."
LONGEST_NAME = 500  # characters, of a tensor's name or of a key above it
# Parts of names that DataParallel and DDP, torch.compile, FSDP, DeepSpeed, activation checkpointing
# and Opacus add.
_WRAPPERS = (
    "module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_forward_module|"
    "_checkpoint_wrapped_module|_dp_module|_module"
)
_WRAPPER = re.compile(rf"(?<![^.])(?:(?:{_WRAPPERS})\.)+")
_NOT_WEIGHTS = re.compile(
    r"(?i)(?:.*_)?(?:optim\w*|lr_sched\w*|schedulers?|scaler|amp)(?:_states?)?"
)
_AVERAGED = re.compile(
    r"(?i)(?<![^._])(?:ema|swa|averaged?|avg|polyak|shadow)"
    r"(?=[._]|model|weights|state|callback|net|$)"
)
_RAW = "current_model_state"
# The first block's convolution in names without dots (LitEma) or with underscores (mmcv's EMAHook).
_WITHOUT_DOTS = re.compile(r"(.*?)(?:layer1_?0_?|res2_?0_?)conv1_?weight")
_DEEPEST = 8  # mappings in mappings

# For each naming scheme of ResNets: the first convolution, and that of the first block.
_SIGNATURES = (
    (r"conv1\.weight", r"layer1\.0\.conv1\.weight"),  # torchvision, CLIP
    (
        r"(?:conv1|stem)\.0\.weight",
        r"layer1\.0\.conv1\.weight",
    ),  # deep stems of timm and mmpretrain
    (r"stem\.conv1\.conv\.weight", r"stages\.0\.0\.conv1_1x1\.conv\.weight"),  # timm's CLIP
    (r"0\.weight", r"4\.0\.conv1\.weight"),  # children of torchvision's in nn.Sequential
    (
        r"embedder\.embedder\.convolution\.weight",
        r"encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight",
    ),  # transformers
    (r"conv1_w", r"res2_0_branch2a_w"),  # Caffe2
    (r"stem\.conv1\.weight", r"res2\.0\.conv1\.weight"),  # Detectron2
)


class Place(NamedTuple):
    """A mapping of names to tensors in a file."""

    keys: tuple[str, ...]  # from the top level to the mapping
    tensors: dict[str, torch.Tensor]
    unreadable: frozenset[str]  # names of values that are not plain tensors


class Network(NamedTuple):
    """The tensors under one prefix of a place."""

    place: Place
    prefix: str  # as in the file, including wrappers

    @property
    def location(self) -> str:
        """Keys and prefix in one, as MODEL.WEIGHTS_PREFIX may name it; "." is the top level."""
        return "".join(f"{key}." for key in self.place.keys) + self.prefix or TOP_LEVEL

    @property
    def plain_prefix(self) -> str:
        """The prefix without wrappers."""
        return without_wrappers(self.prefix)

    @property
    def plain_location(self) -> str:
        """The location without wrappers."""
        return "".join(f"{key}." for key in self.place.keys) + self.plain_prefix

    @property
    def local(self) -> dict[str, list[str]]:
        """{name below the prefix without wrappers: names in the file}."""
        return below(self.prefix, [*self.place.tensors, *self.place.unreadable])

    @property
    def is_averaged(self) -> bool:
        """Whether these are running averages, by ``n_averaged``, or else by names or keys."""
        count = self.averaged_count
        return bool(_AVERAGED.search(self.location)) if count is None else count > 0

    @property
    def is_raw(self) -> bool:
        """Whether these are the weights that Lightning's WeightAveraging keeps beside the average.

        The average is the file's ``state_dict``.
        """
        return _RAW in self.place.keys

    @property
    def averaged_count(self) -> int | None:
        """``n_averaged`` of PyTorch's AveragedModel; None if it is missing or not a count."""
        parts = self.prefix.split(".")
        for end in range(len(parts)):
            value = self.place.tensors.get(".".join([*parts[:end], "n_averaged"]))
            if value is not None and value.numel() == 1 and value.dtype in WHOLE_NUMBERS:
                return int(value)
        return None

    def root(self, own_prefix: str) -> str:
        """Return the prefix without the family's own prefix at its end, and its wrappers."""
        parts = self.prefix.split(".")[:-1]
        for _ in range(own_prefix.count(".")):
            while _is_wrapper(parts[-1]):
                parts.pop()
            parts.pop()
        return "".join(f"{part}." for part in parts)


def unnamed_averages(places: Iterable[Place]) -> list[str]:
    """Find averages whose tensors have no names (torch_ema) or names without dots (LitEma, mmcv).

    They cannot be matched with the tensors of a network.
    """
    found = []
    for place in places:
        if all(name.isdigit() for name in place.tensors):
            found.append(".".join(place.keys))
        matches = (_WITHOUT_DOTS.fullmatch(name) for name in place.tensors)
        found += [
            "".join(f"{key}." for key in place.keys) + f"{match[1]}*" for match in matches if match
        ]
    return [keys for keys in found if _AVERAGED.search(f"{keys}.".replace("*.", ""))]


def find_places(content: Any, keys: tuple[str, ...] = ()) -> list[Place]:
    """Return every mapping with tensors in a file's content, without optimizers and schedules."""
    return list(_walk(content, keys, set()))


def long_name(places: Iterable[Place]) -> str:
    """Return a name or key that is longer than LONGEST_NAME; "" if there is none."""
    names = (name for place in places for name in (*place.keys, *place.tensors))
    return next((name for name in names if len(name) > LONGEST_NAME), "")


def find_networks(places: Iterable[Place]) -> list[Network]:
    """Return the ResNets in places: the prefixes of a first convolution and a first block."""
    return [Network(place, prefix) for place in places for prefix in _prefixes(place)]


def find_like(places: Iterable[Place], layers: Iterable[str]) -> list[Network]:
    """Return the networks in places that have most of three sampled layers of these names."""
    layers = list(layers)
    samples = {layers[index] for index in (0, len(layers) // 2, -1)} if layers else set()
    found: dict[tuple[int, str], set[str]] = {}
    places = list(places)
    for index, place in enumerate(places):
        for name in place.tensors:
            for layer in samples:
                if (prefix := _prefix_before(layer, name)) is not None:
                    found.setdefault((index, prefix), set()).add(layer)
    most = max(map(len, found.values()), default=0)
    return [
        Network(places[index], prefix)
        for (index, prefix), seen in found.items()
        if len(seen) == most
    ]


@lru_cache(maxsize=100_000)
def without_wrappers(name: str) -> str:
    """Return a name or prefix without the parts that DDP, torch.compile, FSDP and others add.

    Example:
        >>> without_wrappers("_orig_mod.module.layer1._checkpoint_wrapped_module.0.conv1.weight")
        'layer1.0.conv1.weight'
    """
    return _WRAPPER.sub("", name)


def below(prefix: str, names: Iterable[str]) -> dict[str, list[str]]:
    """Return {name below a prefix without wrappers: names in the file}.

    Names with a wrapper directly below the prefix belong to another network with a longer prefix.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        rest = name[len(prefix) :]
        if name.startswith(prefix) and not _WRAPPER.match(rest):
            found.setdefault(without_wrappers(rest), []).append(name)
    return found


def _walk(content: Any, keys: tuple[str, ...], seen: set[int]) -> Iterator[Place]:
    if id(content) in seen or len(keys) > _DEEPEST:
        return
    seen.add(id(content))
    items = [(str(key), value) for key, value in _items(content)]
    tensors = {key: value for key, value in items if isinstance(value, torch.Tensor)}
    unreadable = frozenset(
        key for key, value in items if value is None and "." in key and len(key) <= LONGEST_NAME
    )
    if tensors or unreadable:
        yield Place(keys, tensors, unreadable)
    for key, value in items:
        if isinstance(value, Mapping | list | tuple) and not _is_not_weights(key):
            yield from _walk(value, (*keys, key), seen)


def _is_not_weights(key: str) -> bool:
    return len(key) <= LONGEST_NAME and _NOT_WEIGHTS.fullmatch(key) is not None


def _items(content: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(content, Mapping):
        return content.items()
    return enumerate(content) if isinstance(content, list | tuple) else ()


def _prefixes(place: Place) -> list[str]:
    names = [*place.tensors, *place.unreadable]
    found: dict[str, None] = {}
    for stem, block in _COMPILED:
        stems = {match[1] for name in names if (match := stem.fullmatch(name))}
        found |= {
            match[1]: None
            for name in names
            if (match := block.fullmatch(name)) and match[1] in stems
        }
    return list(found)


def _signature(pattern: str) -> re.Pattern[str]:
    # Wrappers may follow every dot, so that the prefix ends where the network begins.
    inside = pattern.replace(r"\.", rf"\.(?:(?:{_WRAPPERS})\.)*")
    return re.compile(rf"((?:.*[./])?){inside}")


_COMPILED = tuple((_signature(stem), _signature(block)) for stem, block in _SIGNATURES)


def _prefix_before(layer: str, name: str) -> str | None:
    if not name.endswith(layer.rpartition(".")[2]):
        return None
    parts = name.split(".")
    for start in range(len(parts)):
        if without_wrappers(".".join(parts[start:])) == layer and not _is_wrapper(parts[start]):
            return "".join(f"{part}." for part in parts[:start])
    return None


def _is_wrapper(part: str) -> bool:
    return re.fullmatch(_WRAPPERS, part) is not None
