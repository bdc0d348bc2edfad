"""Loading weights into a model: every tensor is accounted for, incomplete loads are refused."""

import logging
import os
from collections.abc import Iterable, Mapping

import torch
from detectron2.config import CfgNode
from torch import nn

from virtex_det.checkpoint.backbones import backbone_names, find_backbone
from virtex_det.checkpoint.compatibility import check_config
from virtex_det.checkpoint.formats import CAFFE2
from virtex_det.checkpoint.names import COUNTER
from virtex_det.checkpoint.refusal import check_whole, required_names
from virtex_det.checkpoint.report import LoadReport, Mismatch
from virtex_det.checkpoint.sources import open_for
from virtex_det.checkpoint.values import problem
from virtex_det.checkpoint.weights import Required, Weights
from virtex_det.errors import UserError
from virtex_det.files import as_name

_STATISTICS = (".norm.running_mean", ".norm.running_var")
_EPSILON = 1e-5  # of FrozenBatchNorm2d, which adds it to the variance

logger = logging.getLogger(__name__)


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
        model: a detector, a pretraining model or a backbone alone, with Detectron2's ResNet in it;
            changed in place.
        path: a file, or an address that Detectron2's path handlers know.
        require: what must be filled: the backbone, or the whole model with its heads.
        allow_partial: accept an incomplete load; the report lists what is missing.
        cfg: refuse weights that this config contradicts; its MODEL.WEIGHTS_FORMAT may name their
            family.

    Raises:
        UserError: the file cannot be read, its family is unknown, the config contradicts it, or
            the load would be incomplete. The model is unchanged.

    Example:
        >>> report = load_weights(model, "bicaptioning_R_50_L1_H2048.pth")  # doctest: +SKIP
        >>> report.format, len(report.loaded)  # doctest: +SKIP
        ('virtex', 265)
    """
    path = as_name(path, "The weights file")
    if not isinstance(model, nn.Module):
        raise UserError(
            f"The model is a {type(model).__name__}; expected a torch.nn.Module: "
            "load_weights(model, path)."
        )
    source = open_for(tuple(model.state_dict()), path, require, cfg)
    report = fill(
        model, source.weights, path, require=require, allow_partial=allow_partial, cfg=cfg
    )
    if report.also_in_model:
        logger.warning("%s: %s", path, report.not_filled())
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
    """Copy weights into a model's tensors of the same shapes, or raise and change nothing.

    Matched tensors are counted here, since ``load_state_dict`` does not list all missing names:
    FrozenBatchNorm2d makes up running statistics that a file lacks.

    Args:
        model: changed in place.
        weights: the network that `recognise` found in a file.
        path: of that file, for the report and messages.
        require: what must be filled.
        allow_partial: accept an incomplete load.
        cfg: refuse weights that this config contradicts.

    Raises:
        UserError: a required tensor would not be filled, the file's backbone has more tensors than
            the model's, or the config contradicts the weights.
    """
    # With keep_vars, a tensor that two networks share is the same object.
    own = model.state_dict(keep_vars=True)
    targets = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
    report, sources = compare(
        targets, weights, path, require=require, allow_partial=allow_partial, cfg=cfg
    )
    check_values(
        {name: weights.tensors[source] for name, source in sources.items()}, targets, sources, path
    )
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
    """Check by names and shapes whether weights would fill the required tensors of a model.

    Args:
        targets: the model's tensors by name, which may be on the device "meta".
        weights: the network that `recognise` found in a file.
        path: of that file.
        require: what must be filled.
        allow_partial: accept an incomplete load.
        cfg: refuse weights that this config contradicts.

    Returns:
        The report of the planned load, and {name in the model: name in the file}.

    Raises:
        UserError: as `fill`.
    """
    if cfg is not None:
        check_config(weights, cfg, path)
    report, sources = match(targets, weights, require)
    report = report._replace(path=path)
    is_whole = check_whole(report, weights, targets, require, allow_partial=allow_partial)
    return report._replace(partial=not is_whole), sources


def match(
    targets: Mapping[str, torch.Tensor], weights: Weights, require: Required
) -> tuple[LoadReport, dict[str, str]]:
    """Match the tensors of a model with those of a file, without changing either.

    Returns:
        The report of the planned load, and {name in the model: name in the file}.
    """
    named = weights.sources(targets)
    mismatched = [
        Mismatch(name, tuple(weights.tensors[source].shape), tuple(targets[name].shape))
        for name, source in named.items()
        if weights.tensors[source].shape != targets[name].shape
    ]
    other_shape = {mismatch.name for mismatch in mismatched}
    sources = {name: source for name, source in named.items() if name not in other_shape}
    required, folded = required_names(targets, require), _folded(targets, weights)
    report = LoadReport(
        format=weights.format.name,
        loaded=tuple(sources),
        missing=tuple(
            name
            for name in targets
            if name in required and name not in named and name not in folded
        ),
        mismatched=tuple(mismatched),
        unused=tuple(sorted(set(weights.tensors) - set(named.values()))),
        note=weights.format.note,
        location=weights.location,
        choice=weights.choice,
        assumed=weights.assumed,
        folded=tuple(folded),
        also_in_model=_not_filled(targets, sources),
    )
    return report, sources


def _not_filled(targets: Mapping[str, torch.Tensor], sources: Iterable[str]) -> tuple[str, ...]:
    """Return the prefixes of the model's other networks that no loaded tensor belongs to."""
    filled = set(sources)
    objects = {id(targets[name]) for name in filled}
    return tuple(
        prefix
        for prefix in find_backbone(targets).others
        if not any(
            name in filled or id(value) in objects
            for name, value in targets.items()
            if name.startswith(prefix)
        )
    )


def _folded(names: Iterable[str], weights: Weights) -> list[str]:
    """Return a model's statistics that Detectron (Caffe2) folds into scales and biases.

    Only of frozen norms: mean 0 and variance 1 would be wrong for norms that are trained.
    """
    if weights.format.name != CAFFE2 or any(
        layer.endswith(_STATISTICS) for layer in weights.backbone
    ):
        return []
    names = set(names)
    layers = {
        name: layer for name, layer in backbone_names(names).items() if layer.endswith(_STATISTICS)
    }
    return [
        name
        for name, layer in layers.items()
        if f"{layer.rpartition('.')[0]}.weight" in weights.backbone
        and name.rpartition(".")[0] + COUNTER not in names
    ]


def check_values(
    tensors: Mapping[str, torch.Tensor],
    targets: Mapping[str, torch.Tensor],
    sources: Mapping[str, str],
    path: str,
) -> None:
    """Refuse values that no trained network has.

    Args:
        tensors: of the file, by their names in the model.
        targets: the model's tensors that they will fill.
        sources: {name in the model: name in the file}.
        path: the file's name in messages.

    Raises:
        UserError: lists the invalid tensors by their names in the file.
    """
    wrong = {
        sources[name]: why
        for name, value in tensors.items()
        if (why := problem(name, value, targets[name]))
    }
    if wrong:
        lines = [f"  {source}: {why}" for source, why in list(wrong.items())[:5]]
        more = [f"  and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise UserError(
            f"{path} has values that no trained network has; nothing was loaded:\n"
            + "\n".join([*lines, *more])
            + "\nUse another checkpoint of that training, or convert the file again from its "
            "source."
        )
