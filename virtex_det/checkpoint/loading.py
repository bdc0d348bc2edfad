"""Weights meet a model: every tensor is accounted for, and a model that would not be whole is left as it was."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import nn

from virtex_det.checkpoint.agreement import check_config, family_of
from virtex_det.checkpoint.architecture import describe
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.checkpoint.reading import file_sha256, local_path, read_file
from virtex_det.checkpoint.recognition import Weights, recognise
from virtex_det.errors import UserError
from virtex_det.utils import write_atomically

Required = Literal["backbone", "model"]

RANDOM_INIT = "random init"
_REPORT_NAME = "load_report.json"
_OTHER_LAYERS = "other layers"
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
    partial: bool = False  # less than was required, by permission
    note: str = ""  # what is to know of the family

    def table(self) -> str:
        """Return the numbers of tensors per stage as a short table."""
        groups = (_by_stage(self.loaded), _by_stage(self.missing), _by_stage(m.name for m in self.mismatched))
        rows = [[stage, *(len(group.get(stage, ())) for group in groups)] for stage in _STAGES]
        total = ["all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))]
        table = tabulate([*(row for row in rows if any(row[1:])), total], ["stage", "loaded", "missing", "other shape"])
        note = f"\nnote: {self.note}" if self.note else ""
        return f"{table}\nunused tensors of the file: {_some(self.unused)}{note}"

    def to_json(self) -> str:
        """Return every field as JSON."""
        fields = self._asdict() | {"mismatched": [mismatch._asdict() for mismatch in self.mismatched]}
        return json.dumps(fields, indent=2) + "\n"

    def write(self, run_folder: str | Path) -> None:
        """Write ``load_report.json`` into a run folder."""
        write_atomically(Path(run_folder) / _REPORT_NAME, self.to_json())


def load_weights(
    model: nn.Module,
    path: str,
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
    file = local_path(path)
    weights = recognise(read_file(file), path, family_of(cfg))
    report = fill(model, weights, path, require=require, allow_partial=allow_partial, cfg=cfg)
    return report._replace(sha256=file_sha256(file))


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
    if cfg is not None:
        check_config(weights, cfg, path)
    targets = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    if require == "backbone" and not any(map(from_detectron2, targets)):
        raise UserError(f"The model has no ResNet backbone with Detectron2's names, so {path} has no place in it.")
    report, sources = match(targets, weights, require)
    report = report._replace(path=path)
    problems = _problems(report, weights, targets, require)
    if problems and not (allow_partial and report.loaded):
        raise UserError(_explain(report, problems, weights, targets, require))
    with torch.no_grad():
        for name, source in sources.items():
            targets[name].copy_(weights.tensors[source])
    return report._replace(partial=bool(problems))


def match(
    targets: Mapping[str, torch.Tensor], weights: Weights, require: Required
) -> tuple[LoadReport, dict[str, str]]:
    """Find for each tensor of a model the one in the file, without touching either.

    Returns:
        The report of a load that is still to be done, and for each loadable name in the model its name in the file.
    """
    named = {name: source for name in targets if (source := weights.named(name)) is not None}
    mismatched = [
        Mismatch(name, tuple(weights.tensors[source].shape), tuple(targets[name].shape))
        for name, source in named.items()
        if weights.tensors[source].shape != targets[name].shape
    ]
    other_shape = {mismatch.name for mismatch in mismatched}
    sources = {name: source for name, source in named.items() if name not in other_shape}
    report = LoadReport(
        format=weights.format.name,
        loaded=tuple(sources),
        missing=tuple(name for name in targets if name not in named and _is_required(name, require)),
        mismatched=tuple(mismatched),
        unused=tuple(sorted(set(weights.tensors) - set(named.values()))),
        note=weights.format.note,
    )
    return report, sources


def _is_required(name: str, require: Required) -> bool:
    # The count of batches seen steers only a norm with momentum None, and frozen norms have none to give.
    if name.endswith(".num_batches_tracked"):
        return False
    return require == "model" or from_detectron2(name) is not None


def _problems(
    report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor], require: Required
) -> dict[str, str]:
    """Return what keeps the model from being whole: by name, what is wrong."""
    problems = {name: f"{name} is missing" for name in report.missing}
    problems |= {m.name: str(m) for m in report.mismatched if _is_required(m.name, require)}
    # ResNet-101 fills every tensor of ResNet-50, and is another network: what the file has beyond the model counts too.
    stages = {_stage(name) for name in targets}
    used = set(weights.tensors) - set(report.unused)
    for canonical, source in weights.backbone.items():
        if source not in used and _stage(canonical) in stages and not source.endswith(".num_batches_tracked"):
            problems[canonical] = f"{source} of the file is not in the model"
    return problems


def _explain(
    report: LoadReport,
    problems: Mapping[str, str],
    weights: Weights,
    targets: Mapping[str, torch.Tensor],
    require: Required,
) -> str:
    what = "the whole model" if require == "model" else "the backbone"
    lines = [
        f"{report.path} (format {report.format}) does not fill {what}; nothing was loaded.",
        f"{len(report.loaded)} tensors fit; {len(report.missing)} missing, {len(report.mismatched)} of another shape:",
        *(f"  {stage}: {_some([problems[n] for n in names], shown=2)}" for stage, names in _by_stage(problems).items()),
        *_compare_architectures(weights, targets),
    ]
    if require == "model":
        lines.append("To evaluate, MODEL.WEIGHTS must name a model trained with this config.")
    else:
        lines.append("To load what fits and leave the rest at random: MODEL.ALLOW_PARTIAL_WEIGHTS True")
    return "\n".join(lines)


def _compare_architectures(weights: Weights, targets: Mapping[str, torch.Tensor]) -> list[str]:
    in_file = weights.architecture
    model = {canonical: value for name, value in targets.items() if (canonical := from_detectron2(name))}
    in_model = describe(model, in_file.stem, in_file.downsample)
    if in_model.stem != in_file.stem:
        in_model = in_model._replace(downsample=None)  # pools have no tensors: what is not told stays unknown
    if in_file == in_model:
        return [f"File and model have the same architecture: {in_file}."]
    here = in_model.config()
    fitting = [f"{key} {value}" for key, value in in_file.config().items() if here.get(key) != value]
    return [
        f"The file has {in_file}.",
        f"The model has {in_model}.",
        f"Config keys that would fit the file: {'  '.join(fitting) or 'none known'}",
    ]


def _by_stage(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stage(name), []).append(name)
    return {stage: groups[stage] for stage in _STAGES if stage in groups}


def _stage(name: str) -> str:
    canonical = from_detectron2(name)
    return canonical.partition(".")[0] if canonical else _OTHER_LAYERS


def _some(items: Iterable[str], shown: int = 3) -> str:
    items = list(items)
    more = f"; and {len(items) - shown} more" if len(items) > shown else ""
    return "; ".join(items[:shown]) + more if items else "none"
