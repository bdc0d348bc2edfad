"""Reasons why a file does not fit a model, from names and shapes, with advice."""

import re
from collections.abc import Iterable, Mapping

_BLOCK = r"(?:layer|res)\d\.\d+\.(?:.*\.)?"
# Pattern of a tensor's name -> what it shows.
_SIGNS = (
    (
        rf"{_BLOCK}(?:se|eca|cbam|gc|attn|att)\d?\.",
        "Its blocks have attention (SE, ECA, CBAM or the like).",
    ),
    (rf"{_BLOCK}(?:convs|bns)\.\d", "Its blocks split their middle convolution, as Res2Net's do."),
    (rf"{_BLOCK}bn\d\.(?:IN|BN)\.", "Its norms are partly instance norms, as IBN-Net's are."),
    (r"\.filt$", "It has blur pools."),
    (
        r"\.weight_(?:orig|mask)$",
        "It was saved while being pruned: save it again after torch.nn.utils.prune.remove.",
    ),
    (
        r"\.weight_[gv]$|\.parametrizations\.",
        "Its weights are parametrised (weight norm or the like): save it again after "
        "torch.nn.utils.parametrize.remove_parametrizations.",
    ),
    (
        r"\.lora_|\.base_layer\.",
        "It has adapters beside its weights (LoRA): merge them, and save it again.",
    ),
    (
        r"(?:^|\.)(?:cls_token|class_embedding|patch_embed|visual\.transformer)\b",
        "It has a vision transformer.",
    ),
    (
        r"fake_quant|activation_post_process",
        "It was saved while being prepared for quantisation: take the float model.",
    ),
)
_SHARD = re.compile(r".*-\d+-of-\d+\.\w+")


def of_names(names: Iterable[str]) -> list[str]:
    """Return the parts, shown by a file's names, that virtex_det's networks do not have.

    Example:
        >>> of_names(["layer1.0.se.fc1.weight"])
        ['Its blocks have attention (SE, ECA, CBAM or the like).']
    """
    text = "\n".join(names)
    return [what for sign, what in _SIGNS if re.search(sign, text, re.MULTILINE)]


def of_path(path: str) -> list[str]:
    """Return advice for a path that is one of several files of a model.

    Example:
        >>> of_path("model-00001-of-00002.safetensors")  # doctest: +NORMALIZE_WHITESPACE
        ['It is one of several files of a model: name their folder, or the *.index.json beside
        them.']
    """
    is_shard = _SHARD.fullmatch(path) is not None
    return [
        "It is one of several files of a model: name their folder, or the *.index.json beside them."
    ] * is_shard


def of_layers(
    in_file: Mapping[str, tuple[int, ...]], in_model: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Return the differences that shapes and layers show.

    Args:
        in_file: shapes of the file's backbone, by canonical name.
        in_model: shapes of the model's backbone.
    """
    reasons, both = [], (in_file, in_model)
    stem = "stem.conv1.weight"
    channels = [shapes[stem][1] for shapes in both if len(shapes.get(stem, ())) == 4]
    if len(set(channels)) == 2:
        reasons.append(
            f"Its first convolution has {channels[0]} input channels, the model's {channels[1]}: "
            "INPUT.FORMAT and the lengths of MODEL.PIXEL_MEAN and PIXEL_STD decide (1 for L, 3 for "
            "RGB and BGR, 4 for RGBA and CMYK)."
        )
    has_norms = any(".norm." in layer for layer in in_file)
    if not has_norms and any(
        re.search(r"\.(?:conv\d|shortcut)\.bias$", layer) for layer in in_file
    ):
        reasons.append(
            "Its norms are folded into its convolutions: use the file from before the folding."
        )
    file_counts, model_counts = (
        any(layer.endswith(".norm.running_var") for layer in each) for each in both
    )
    if has_norms and model_counts and not file_counts:
        reasons.append(
            "Its norms have no running statistics. Set MODEL.RESNETS.NORM GN for group norms, or "
            "FrozenBN for the norms of Detectron (Caffe2), which are scales and biases."
        )
    if file_counts and not model_counts:
        reasons.append(
            "Its norms have running statistics: set MODEL.RESNETS.NORM BN, SyncBN or FrozenBN."
        )
    return reasons
