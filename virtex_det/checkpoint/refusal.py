"""Checks that weights fill a model's required tensors, and the error message if they do not."""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch

from virtex_det.checkpoint import reasons
from virtex_det.checkpoint.architecture import describe
from virtex_det.checkpoint.backbones import backbone_names, find_backbone
from virtex_det.checkpoint.names import COUNTER
from virtex_det.checkpoint.report import OTHER_LAYERS, LoadReport, by_stage, some
from virtex_det.checkpoint.weights import Required, Weights
from virtex_det.errors import UserError

_NOT_IN_MODEL = "is not in the model"
# Buffers of older versions, and counters that no model needs.
_NOT_OF_A_MODEL = re.compile(r".*\.num_batches_tracked|.*anchor_generator\.cell_anchors.*")


def check_whole(
    report: LoadReport,
    weights: Weights,
    targets: Mapping[str, torch.Tensor],
    require: Required,
    *,
    allow_partial: bool,
) -> bool:
    """Return whether a load fills all required tensors.

    Args:
        report: of the planned load.
        weights: the network in the file.
        targets: the model's tensors by name.
        require: what must be filled.
        allow_partial: accept an incomplete load.

    Raises:
        UserError: the load is incomplete, and that is not accepted; or the match is ambiguous.
    """
    _check_repeated(report, weights, targets)
    _check_rivals(report, targets)
    problems = _problems(report, weights, targets, require)
    if problems and not (allow_partial and report.loaded):
        raise UserError(_explain(report, problems, weights, targets, require))
    return not problems


def required_names(names: Iterable[str], require: Required) -> set[str]:
    """Return the names of the model's tensors that must be filled."""
    names = list(names)
    wanted = names if require == "model" else backbone_names(names)
    # Only a norm with momentum None uses its counter of batches, and files of frozen norms lack it.
    return {name for name in wanted if not name.endswith(COUNTER)}


def _check_repeated(
    report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor]
) -> None:
    """Refuse layers that the file has twice, unless the model's own names decide between them."""
    layers = backbone_names(targets)
    used = set(weights.tensors) - set(report.unused)
    twice = [
        f"{name} could be {' or '.join(weights.repeated[layers[name]])}"
        for name in report.loaded
        if layers.get(name) in weights.repeated and weights.rest.get(name) not in used
    ]
    if twice:
        raise UserError(
            f"{report.path} has {len(twice)} layers of the backbone in two places; nothing was "
            "loaded:\n"
            f"  {some(twice, shown=2)}\n"
            "Save only the one to load, or set MODEL.WEIGHTS_PREFIX to the prefix of a whole "
            "network."
        )


def _check_rivals(report: LoadReport, targets: Mapping[str, torch.Tensor]) -> None:
    """Refuse to fill one of several networks of a model that could each be MODEL.BACKBONE."""
    found = find_backbone(targets)
    left = [prefix for prefix in found.rivals if prefix in report.also_in_model]
    if left:
        raise UserError(
            f"The model has {len(found.rivals) + 1} networks that could be MODEL.BACKBONE: "
            f"{' and '.join([found.prefix, *found.rivals])}\n"
            f"{report.path} fills one of them; nothing was loaded.\n"
            "In the model, give the network that the file should fill the name backbone "
            "(self.backbone = build_backbone(cfg)): then the others stay unchanged, and the report "
            "lists them. Or load a checkpoint of this model, which has all networks."
        )


def _problems(
    report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor], require: Required
) -> dict[str, str]:
    """Return {name: why this tensor makes the load incomplete}."""
    layers, required = backbone_names(targets), required_names(targets, require)
    problems = {
        name: f"{name} {_why_missing(layers.get(name, name), weights)}" for name in report.missing
    }
    problems |= {m.name: str(m) for m in report.mismatched if m.name in required}
    used = set(weights.tensors) - set(report.unused)
    # ResNet-101 fills every tensor of ResNet-50 but is another network, so tensors of the file that
    # the model lacks count too.
    stages = {layer.partition(".")[0] for layer in layers.values()}
    for layer, source in weights.backbone.items():
        if (
            source not in used
            and layer.partition(".")[0] in stages
            and not source.endswith(COUNTER)
        ):
            problems[layer] = f"{source} of the file {_NOT_IN_MODEL}"
    if require == "model":
        problems |= {
            n: f"{source} of the file {_NOT_IN_MODEL}"
            for n, source in _more_of_parts(targets, weights, used)
        }
    return problems


def _more_of_parts(
    targets: Iterable[str], weights: Weights, used: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield (model's name, file's name) of extra tensors in parts that the model has.

    A head that the model lacks is left out on purpose, such as the mask head with MASK_ON False. An
    extra layer in a head that it has means that the file's model is another one.
    """
    parts = {_part(name) for name in targets}
    for name, source in weights.rest.items():
        if source not in used and _part(name) in parts and not _NOT_OF_A_MODEL.fullmatch(name):
            yield name, source


def _part(name: str) -> str:
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "roi_heads" and rest else first


def _why_missing(layer: str, weights: Weights) -> str:
    if layer in weights.unreadable:
        return (
            f"is {weights.unreadable[layer]} in the file, which is not a plain tensor but "
            "quantised, sparse or an object"
        )
    return "is missing"


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
    counts += [f"{len(beyond)} of the file not in the model"] if beyond else []
    plain, advice = _compare_architectures(weights, targets)
    lines = [
        f"{report.path} (format {report.format}) does not fill {what}; nothing was loaded.",
        *plain,
        f"{len(report.loaded)} tensors fit; {', '.join(counts)}:",
        *(
            f"  {stage}: {some([problems[n] for n in names], shown=2)}"
            for stage, names in by_stage(problems).items()
        ),
        *_reasons(report, weights, targets),
        *(advice if set(by_stage(problems)) - {OTHER_LAYERS} else []),
        *(
            [f"This is the network at {weights.location} of the file; {weights.choice}."]
            if weights.choice
            else []
        ),
    ]
    if require == "model":
        lines.append("To evaluate, MODEL.WEIGHTS must name a model trained with this config.")
    else:
        lines.append(
            "To load what fits and leave the rest at random init: MODEL.ALLOW_PARTIAL_WEIGHTS True"
        )
    return "\n".join(lines)


def _reasons(
    report: LoadReport, weights: Weights, targets: Mapping[str, torch.Tensor]
) -> list[str]:
    if not weights.is_resnet:
        return reasons.of_path(report.path)
    in_file = {
        layer: tuple(weights.tensors[name].shape) for layer, name in weights.backbone.items()
    }
    in_model = {
        layer: tuple(targets[name].shape) for name, layer in backbone_names(targets).items()
    }
    shown = reasons.of_names(set(weights.backbone.values()) & set(report.unused))
    return [*shown, *reasons.of_layers(in_file, in_model), *reasons.of_path(report.path)]


def _compare_architectures(
    weights: Weights, targets: Mapping[str, torch.Tensor]
) -> tuple[list[str], list[str]]:
    """Return the difference in one sentence, and details with the config keys that would fit."""
    layers = backbone_names(targets)
    model = {layer: targets[name] for name, layer in layers.items()}
    if not weights.is_resnet or "res2.0.conv1.weight" not in model:
        return [], []
    in_file = weights.architecture
    in_model = describe(model, in_file.stem, in_file.downsample)
    if in_model.stem != in_file.stem:
        # Pools have no tensors, so the model's downsampling stays unknown.
        in_model = in_model._replace(downsample=None)
    if in_file == in_model:
        return [], [f"File and model have the same architecture: {in_file}."]
    here = in_model.config()
    fitting = [
        f"{key} {value}" for key, value in in_file.config().items() if here.get(key) != value
    ]
    keys = f"Config keys that would fit the file: {'  '.join(fitting) or 'none known'}"
    both = [f"The file has {in_file}.", f"The model has {in_model}."]
    if in_file.name == in_model.name or not weights.is_whole:
        return [], [*both, keys]
    return [f"The file holds a {in_file.name}, the config builds a {in_model.name}.", keys], both
