"""Weights meet a model: every tensor is accounted for, and a model that would not be whole is left as it was."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import nn

from virtex_det.checkpoint import reasons
from virtex_det.checkpoint.agreement import check_config
from virtex_det.checkpoint.architecture import describe
from virtex_det.checkpoint.formats import CAFFE2
from virtex_det.checkpoint.names import backbone_names, from_detectron2, other_networks
from virtex_det.checkpoint.recognition import Weights
from virtex_det.checkpoint.sources import Required, open_for
from virtex_det.checkpoint.values import problem
from virtex_det.errors import UserError
from virtex_det.escaping import visible
from virtex_det.utils import write_atomically

RANDOM_INIT = "random init"
_REPORT_NAME = "load_report.json"
_OTHER_LAYERS = "other layers"
_COUNTER = ".num_batches_tracked"
_NOT_IN_MODEL = "is not in the model"
# Buffers that older versions saved, and counts that no model needs.
_NOT_OF_A_MODEL = re.compile(r".*\.num_batches_tracked|.*anchor_generator\.cell_anchors.*")
_STATISTICS = (".norm.running_mean", ".norm.running_var")
_EPSILON = 1e-5  # of FrozenBatchNorm2d, which adds it to the variance
_STAGES = ("stem", "res2", "res3", "res4", "res5", _OTHER_LAYERS)


class Mismatch(NamedTuple):
    """A tensor that the file has in another shape than the model."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.file_shape)} in the file, {list(self.model_shape)} in the model"


class LoadReport(NamedTuple):
    """What became of every tensor when weights met a model."""

    format: str  # family the file was recognised as, e.g. "virtex"
    loaded: tuple[str, ...] = ()  # names in the model that received a tensor
    missing: tuple[str, ...] = ()  # required names in the model that the file has no tensor for
    mismatched: tuple[Mismatch, ...] = ()  # names in the model that the file has in another shape
    unused: tuple[str, ...] = ()  # names in the file that went nowhere
    sha256: str = ""  # of the file
    path: str = ""  # as the config gave it
    partial: bool = False  # less than was required, as ALLOW_PARTIAL_WEIGHTS permits
    note: str = ""  # what is to know of the family
    location: str = ""  # keys and prefix of the network in the file; "." is the top level
    choice: str = ""  # which other networks the file has, and why this one was taken
    assumed: str = ""  # of the network, what neither the tensors nor anything beside the file tells
    folded: tuple[str, ...] = ()  # statistics of frozen norms that the file has in scales and biases: set to 0 and 1
    also_in_model: tuple[str, ...] = ()  # prefixes of other networks of the model, which stay as they were

    def table(self) -> str:
        """Return the numbers of tensors per stage as a short table."""
        groups = (_by_stage(self.loaded), _by_stage(self.missing), _by_stage(m.name for m in self.mismatched))
        rows = [[stage, *(len(group.get(stage, ())) for group in groups)] for stage in _STAGES]
        total = ["all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))]
        table = tabulate([*(row for row in rows if any(row[1:])), total], ["stage", "loaded", "missing", "other shape"])
        remarks = {"network at": self.location, "choice": self.choice, "assumed": self.assumed, "note": self.note}
        if self.folded:
            remarks["folded"] = f"{len(self.folded)} statistics are in the scales and biases, and set to 0 and 1"
        remarks["not filled"] = "; ".join(f"the model's other network {place}" for place in self.also_in_model)
        lines = "".join(f"\n{title}: {text}" for title, text in remarks.items() if text)
        return visible(f"{table}\nunused tensors of the file: {_some(self.unused)}{lines}")

    def to_json(self) -> str:
        """Return every field as JSON."""
        fields = self._asdict() | {"mismatched": [mismatch._asdict() for mismatch in self.mismatched]}
        return json.dumps(fields, indent=2) + "\n"

    def write(self, run_folder: str | Path) -> None:
        """Write ``load_report.json`` into a run folder."""
        write_atomically(Path(run_folder) / _REPORT_NAME, self.to_json())


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    require: Required = "backbone",
    allow_partial: bool = False,
    cfg: CfgNode | None = None,
) -> LoadReport:
    """Load a weights file of any known family into a model, whole or not at all.

    Args:
        model: a detector, a pretraining model or a bare backbone, with Detectron2's ResNet in it; changed in place.
        path: a file, or an address that Detectron2's path handlers know.
        require: what must be filled: the backbone, or the whole model with its heads.
        allow_partial: accept less than that; the report says so.
        cfg: refuse weights that this config contradicts; its MODEL.WEIGHTS_FORMAT may name their family.

    Raises:
        UserError: the file cannot be read, its family is unknown, the config contradicts it, or the model would not be
            whole. The model is as it was.

    Example:
        >>> report = load_weights(model, "bicaptioning_R_50_L1_H2048.pth")
        >>> report.format, len(report.loaded)
        ('virtex', 265)
    """
    path = os.fspath(path)
    source = open_for(tuple(model.state_dict()), path, require, cfg)
    report = fill(model, source.weights, path, require=require, allow_partial=allow_partial, cfg=cfg)
    return report._replace(sha256=source.sha256())


def fill(
    model: nn.Module,
    weights: Weights,
    path: str,
    *,
    require: Required = "backbone",
    allow_partial: bool = False,
    cfg: CfgNode | None = None,
) -> LoadReport:
    """Copy tensors into every place of their own shape in a model, or raise and change nothing.

    Matched tensors are counted here, since ``load_state_dict`` under-reports: FrozenBatchNorm2d makes up the running
    statistics that a file lacks and keeps them off the list of missing names.

    Args:
        model: changed in place.
        weights: what `recognise` made of a file.
        path: of that file, for the report and the message.
        require: what must be filled.
        allow_partial: accept less than that.
        cfg: refuse weights that this config contradicts.

    Raises:
        UserError: a required tensor would not be filled, the file's backbone has more tensors than the model's, or the
            config contradicts the weights.
    """
    targets = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    report, sources = compare(targets, weights, path, require=require, allow_partial=allow_partial, cfg=cfg)
    check_values({name: weights.tensors[source] for name, source in sources.items()}, targets, sources, path)
    with torch.no_grad():
        for name, source in sources.items():
            targets[name].copy_(weights.tensors[source])
        for name in report.folded:
            targets[name].fill_(0 if name.endswith("mean") else 1 - _EPSILON)
    return report


def compare(
    targets: Mapping[str, torch.Tensor],
    weights: Weights,
    path: str,
    *,
    require: Required = "backbone",
    allow_partial: bool = False,
    cfg: CfgNode | None = None,
) -> tuple[LoadReport, dict[str, str]]:
    """Compare names and shapes alone: whether weights would fill what they must of a model.

    Args:
        targets: the model's tensors by name, which may be on the device "meta".
        weights: what `recognise` made of a file.
        path: of that file.
        require: what must be filled.
        allow_partial: accept less than that.
        cfg: refuse weights that this config contradicts.

    Returns:
        The report of a load that is still to be done, and for each loadable name in the model its name in the file.

    Raises:
        UserError: as `fill`.
    """
    if cfg is not None:
        check_config(weights, cfg, path)
    report, sources = match(targets, weights, require)
    report = report._replace(path=path)
    _check_repeated(report, weights, targets)
    problems = _problems(report, weights, targets, require)
    if problems and not (allow_partial and report.loaded):
        raise UserError(_explain(report, problems, weights, targets, require))
    return report._replace(partial=bool(problems)), sources


def match(
    targets: Mapping[str, torch.Tensor], weights: Weights, require: Required
) -> tuple[LoadReport, dict[str, str]]:
    """Find for each tensor of a model the one in the file, without touching either.

    Returns:
        The report of a load that is still to be done, and for each loadable name in the model its name in the file.
    """
    named = weights.sources(targets)
    mismatched = [
        Mismatch(name, tuple(weights.tensors[source].shape), tuple(targets[name].shape))
        for name, source in named.items()
        if weights.tensors[source].shape != targets[name].shape
    ]
    other_shape = {mismatch.name for mismatch in mismatched}
    sources = {name: source for name, source in named.items() if name not in other_shape}
    required, folded = _required(targets, require), _folded(targets, weights)
    report = LoadReport(
        format=weights.format.name,
        loaded=tuple(sources),
        missing=tuple(name for name in targets if name in required and name not in named and name not in folded),
        mismatched=tuple(mismatched),
        unused=tuple(sorted(set(weights.tensors) - set(named.values()))),
        note=weights.format.note,
        location=weights.location,
        choice=weights.choice,
        assumed=weights.assumed,
        folded=tuple(folded),
        also_in_model=tuple(
            place for place in other_networks(targets) if not any(n.startswith(place) for n in sources)
        ),
    )
    return report, sources


def _required(names: Iterable[str], require: Required) -> set[str]:
    names = list(names)
    wanted = names if require == "model" else backbone_names(names)
    # The count of batches seen steers only a norm with momentum None, and frozen norms have none to give.
    return {name for name in wanted if not name.endswith(_COUNTER)}


def _folded(names: Iterable[str], weights: Weights) -> list[str]:
    """Return a model's statistics that the first Detectron folds into scales and biases, as frozen norms may have them.

    Norms that learn begin with the statistics of their data: 0 and 1 would be wrong there.
    """
    if weights.format.name != CAFFE2 or any(layer.endswith(_STATISTICS) for layer in weights.backbone):
        return []
    names = set(names)
    layers = {name: layer for name, layer in backbone_names(names).items() if layer.endswith(_STATISTICS)}
    return [
        name
        for name, layer in layers.items()
        if f"{layer.rpartition('.')[0]}.weight" in weights.backbone and name.rpartition(".")[0] + _COUNTER not in names
    ]


def _problems(
    report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor], require: Required
) -> dict[str, str]:
    """Return what keeps the model from being whole: by name, what is wrong."""
    layers, required = backbone_names(targets), _required(targets, require)
    problems = {name: f"{name} {_why_missing(layers.get(name, name), weights)}" for name in report.missing}
    problems |= {m.name: str(m) for m in report.mismatched if m.name in required}
    used = set(weights.tensors) - set(report.unused)
    # ResNet-101 fills every tensor of ResNet-50, and is another network: what the file has beyond the model counts too.
    stages = {layer.partition(".")[0] for layer in layers.values()}
    for layer, source in weights.backbone.items():
        if source not in used and layer.partition(".")[0] in stages and not source.endswith(_COUNTER):
            problems[layer] = f"{source} of the file {_NOT_IN_MODEL}"
    if require == "model":
        problems |= {n: f"{source} of the file {_NOT_IN_MODEL}" for n, source in _more_of_parts(targets, weights, used)}
    return problems


def _more_of_parts(targets: Iterable[str], weights: Weights, used: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what the file has more of the model's parts: names as a model has them, and in the file.

    A whole head that the model does not have is left out by choice, such as that of masks with MASK_ON False. A layer
    more in a head that it has makes the model another one.
    """
    parts = {_part(name) for name in targets}
    for name, source in weights.rest.items():
        if source not in used and _part(name) in parts and not _NOT_OF_A_MODEL.fullmatch(name):
            yield name, source


def _part(name: str) -> str:
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "roi_heads" and rest else first


def _check_repeated(report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor]) -> None:
    """Refuse layers that the file holds twice, unless the model's own names decide between them."""
    layers = backbone_names(targets)
    used = set(weights.tensors) - set(report.unused)
    twice = [
        f"{name} could be {' or '.join(weights.repeated[layers[name]])}"
        for name in report.loaded
        if layers.get(name) in weights.repeated and weights.rest.get(name) not in used
    ]
    if twice:
        raise UserError(
            f"{report.path} has {len(twice)} layers of the backbone in two places; nothing was loaded:\n"
            f"  {_some(twice, shown=2)}\n"
            "Save only the one to load, or name its place if there is a whole network: MODEL.WEIGHTS_PREFIX"
        )


def _why_missing(layer: str, weights: Weights) -> str:
    if layer in weights.unreadable:
        return f"is {weights.unreadable[layer]} in the file, and no plain tensor but quantised, sparse or an object"
    return "is missing"


def check_values(
    tensors: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], sources: Mapping[str, str], path: str
) -> None:
    """Refuse values that no trained network has.

    Args:
        tensors: of the file, by their names in the model.
        targets: what they are to fill.
        sources: for each name in the model, that in the file.
        path: for the message.

    Raises:
        UserError: naming them as the file does.
    """
    wrong = {sources[name]: why for name, value in tensors.items() if (why := problem(name, value, targets[name]))}
    if wrong:
        lines = [f"  {source}: {why}" for source, why in list(wrong.items())[:5]]
        more = [f"  and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise UserError(
            "\n".join([f"{path} has values that no trained network has; nothing was loaded:", *lines, *more])
            + "\nTake another checkpoint of that training, or convert the file again from its source."
        )


def _explain(
    report: LoadReport,
    problems: Mapping[str, str],
    weights: Weights,
    targets: Mapping[str, torch.Tensor],
    require: Required,
) -> str:
    what = "the whole model" if require == "model" else "the backbone"
    shapes = {mismatch.name for mismatch in report.mismatched} & set(problems)
    beyond = [why for why in problems.values() if why.endswith(_NOT_IN_MODEL)]
    counts = [f"{len(report.missing)} missing", f"{len(shapes)} of another shape"]
    counts += [f"{len(beyond)} of the file that the model has not"] if beyond else []
    plain, advice = _compare_architectures(weights, targets)
    lines = [
        f"{report.path} (format {report.format}) does not fill {what}; nothing was loaded.",
        *plain,
        f"{len(report.loaded)} tensors fit; {', '.join(counts)}:",
        *(f"  {stage}: {_some([problems[n] for n in names], shown=2)}" for stage, names in _by_stage(problems).items()),
        *_reasons(report, weights, targets),
        *(advice if set(_by_stage(problems)) - {_OTHER_LAYERS} else []),
        *([f"Of the networks in the file, that at {weights.location}; {weights.choice}."] if weights.choice else []),
    ]
    if require == "model":
        lines.append("To evaluate, MODEL.WEIGHTS must name a model trained with this config.")
    else:
        lines.append("To load what fits and leave the rest at random: MODEL.ALLOW_PARTIAL_WEIGHTS True")
    return "\n".join(lines)


def _reasons(report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor]) -> list[str]:
    if not weights.is_resnet:
        return reasons.of_path(report.path)
    in_file = {layer: tuple(weights.tensors[name].shape) for layer, name in weights.backbone.items()}
    in_model = {layer: tuple(targets[name].shape) for name, layer in backbone_names(targets).items()}
    shown = reasons.of_names(set(weights.backbone.values()) & set(report.unused))
    return [*shown, *reasons.of_layers(in_file, in_model), *reasons.of_path(report.path)]


def _compare_architectures(weights: Weights, targets: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Return what is wrong in a word, where the networks differ, and how file and model could come together."""
    layers = backbone_names(targets)
    model = {layer: targets[name] for name, layer in layers.items()}
    if not weights.is_resnet or "res2.0.conv1.weight" not in model:
        return [], []
    in_file = weights.architecture
    in_model = describe(model, in_file.stem, in_file.downsample)
    if in_model.stem != in_file.stem:
        in_model = in_model._replace(downsample=None)  # pools have no tensors: what is not told stays unknown
    if in_file == in_model:
        return [], [f"File and model have the same architecture: {in_file}."]
    here = in_model.config()
    fitting = [f"{key} {value}" for key, value in in_file.config().items() if here.get(key) != value]
    keys = f"Config keys that would fit the file: {'  '.join(fitting) or 'none known'}"
    both = [f"The file has {in_file}.", f"The model has {in_model}."]
    if in_file.name == in_model.name or not weights.is_whole:
        return [], [*both, keys]
    return [f"The file holds a {in_file.name}, the config builds a {in_model.name}.", keys], both


def _by_stage(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stage(name), []).append(name)
    return {stage: groups[stage] for stage in _STAGES if stage in groups}


def _stage(name: str) -> str:
    layer = from_detectron2(name)
    return layer.partition(".")[0] if layer else _OTHER_LAYERS


def _some(items: Iterable[str], shown: int = 3) -> str:
    items = list(items)
    more = f"; and {len(items) - shown} more" if len(items) > shown else ""
    return "; ".join(items[:shown]) + more if items else "none"
