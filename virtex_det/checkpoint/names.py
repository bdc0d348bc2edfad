"""Renaming a ResNet's tensors from other naming schemes to Detectron2's, and to torchvision's."""

import re
from collections.abc import Callable

Rules = tuple[tuple[str, str], ...]
Rename = Callable[[str], str | None]

COUNTER = ".num_batches_tracked"  # end of the name of a norm's count of batches
_VIRTEX_HEADS = ("textual.", "backward_textual.")
# Converters for Detectron2 keep a classifier as ``stem.fc``.
_LAYER = r"(?:stem\.(?!fc\.)|res[2-5]\.\d+\.).+"
_CANONICAL_NAME = re.compile(_LAYER)
_BACKBONE_NAME = re.compile(rf"(?:(?:backbone\.)?(?:bottom_up\.)?|roi_heads\.)({_LAYER})")


def from_detectron2(name: str) -> str | None:
    """Return the canonical name of a Detectron2 model's backbone tensor; None for any other tensor.

    In a C4 detector res5 is in the ROI heads; ``roi_heads.res5.norm`` is not part of the backbone.

    Example:
        >>> from_detectron2("backbone.bottom_up.res2.0.conv1.norm.bias")
        'res2.0.conv1.norm.bias'
    """
    match = _BACKBONE_NAME.fullmatch(name)
    return match[1] if match else None


def canonical_only(name: str) -> str | None:
    """Return a name that is already canonical; None for any other name.

    Example:
        >>> canonical_only("res2.0.conv1.weight")
        'res2.0.conv1.weight'
    """
    return name if _CANONICAL_NAME.fullmatch(name) else None


def _renamer(*rules: tuple[str, str]) -> Callable[[str], str]:
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(name: str) -> str:
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        return name

    return rename


def _renamed(name: str, rename: Callable[[str], str]) -> str | None:
    # A name that needed no change is Detectron2's own, so it belongs to another network.
    canonical = rename(name)
    return canonical_only(canonical) if canonical != name else None


def _sequential(layer: str, modules: str) -> Rules:
    """Rules for a deep stem in nn.Sequential, by the indices of its convolutions and norms."""
    parts = ("conv1", "conv1.norm", "conv2", "conv2.norm", "conv3", "conv3.norm")
    return tuple(
        (rf"^{layer}\.{index}\.", f"stem.{part}.")
        for index, part in zip(modules, parts, strict=False)
    )


_STAGES = tuple((rf"^layer{stage}\.", f"res{stage + 1}.") for stage in (1, 2, 3, 4))
_NORMS = (r"\.bn(\d)\.", r".conv\1.norm.")
_SHORTCUT = ((r"\.downsample\.0\.", ".shortcut."), (r"\.downsample\.1\.", ".shortcut.norm."))
_POOLED_SHORTCUT = ((r"\.downsample\.1\.", ".shortcut."), (r"\.downsample\.2\.", ".shortcut.norm."))
_DEEP_STEM = (
    *_sequential("conv1", "01346"),
    (r"^bn1\.", "stem.conv3.norm."),
    *_sequential("stem", "013467"),
)

# Stem names at the top level; CLIP's stem has three convolutions and three norms. virtex_det's stem
# has no pool or activation with tensors; such a tensor must not be taken for one of a head.
_UNKNOWN_STEM = (r"^(maxpool|pool|relu|prelu|act\d?)\.", r"stem.\1.")
_torchvision = _renamer(
    (r"^(conv|bn)(\d)\.", r"stem.\1\2."), _UNKNOWN_STEM, *_STAGES, _NORMS, *_SHORTCUT
)
_deep = _renamer(*_DEEP_STEM, *_STAGES, _NORMS, *_SHORTCUT)
_deep_pooled = _renamer(*_DEEP_STEM, *_STAGES, _NORMS, *_POOLED_SHORTCUT)
_timm_clip = _renamer(
    *((rf"^stages\.{stage}\.", f"res{stage + 2}.") for stage in range(4)),
    (r"conv(\d)_(?:1x1|kxk)\.", r"conv\1."),
    (r"\.shortcut\.conv\.", ".shortcut."),
    (r"\.(conv\d|shortcut)\.conv\.", r".\1."),
    (r"\.(conv\d|shortcut)\.bn\.", r".\1.norm."),
)
_caffe2 = _renamer(
    (r"^conv1_", "stem.conv1."),
    (r"^res_conv1_", "stem.conv1."),
    (r"^res([2-5])_(\d+)_branch", r"res\1.\2.branch"),
    (r"\.branch1_", ".shortcut."),
    *((rf"\.branch2{letter}_", f".conv{number}.") for number, letter in enumerate("abc", start=1)),
    (r"\.[bg]n_(?:s|gamma)$", ".norm.weight"),
    (r"\.[bg]n_(?:bias|beta|b)$", ".norm.bias"),
    (r"\.bn_(?:rm|running_mean)$", ".norm.running_mean"),
    (r"\.bn_(?:riv|running_var)$", ".norm.running_var"),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
)
_sequential_children = _renamer(
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{child}\.", f"layer{child - 3}.") for child in (4, 5, 6, 7)),
)
_transformers = _renamer(
    (r"^embedder\.embedder\.", "stem.conv1."),
    *((rf"^encoder\.stages\.{stage}\.layers\.", f"res{stage + 2}.") for stage in range(4)),
    *((rf"\.layer\.{index}\.", f".conv{index + 1}.") for index in range(3)),
    (r"\.convolution\.", "."),
    (r"\.normalization\.", ".norm."),
)
_to_torchvision = _renamer(
    (r"^stem\.", ""),
    *((f"^res{stage + 1}\\.", f"layer{stage}.") for stage in (1, 2, 3, 4)),
    (r"conv(\d)\.norm\.", r"bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
)
_soco = _renamer(
    *(
        (rf"^neck\.lateral_convs\.{level}\.conv\.", f"backbone.fpn_lateral{level + 2}.")
        for level in range(4)
    ),
    *(
        (rf"^neck\.lateral_convs\.{level}\.bn\.", f"backbone.fpn_lateral{level + 2}.norm.")
        for level in range(4)
    ),
    *(
        (rf"^neck\.fpn_convs\.{level}\.conv\.", f"backbone.fpn_output{level + 2}.")
        for level in range(4)
    ),
    *(
        (rf"^neck\.fpn_convs\.{level}\.bn\.", f"backbone.fpn_output{level + 2}.norm.")
        for level in range(4)
    ),
    (r"^head\.bn(\d)\.", r"roi_heads.box_head.conv\1.norm."),
    (r"^head\.", "roi_heads.box_head."),
)


def from_torchvision(name: str) -> str | None:
    """Return the canonical name of a tensor of torchvision's or CLIP's ResNet.

    None for the classifier and CLIP's attention.

    Example:
        >>> from_torchvision("layer1.0.downsample.1.bias")
        'res2.0.shortcut.norm.bias'
    """
    return _renamed(name, _torchvision)


def from_deep_stem(name: str) -> str | None:
    """Return the canonical name of a ResNet-C's or S's tensor in timm's or mmpretrain's naming.

    They name the stem ``conv1.3`` and ``stem.3``.

    Example:
        >>> from_deep_stem("conv1.3.weight")
        'stem.conv2.weight'
    """
    return _renamed(name, _deep)


def from_resnet_d(name: str) -> str | None:
    """Return the canonical name of a ResNet-D's tensor, whose shortcut has a pool before it.

    Example:
        >>> from_resnet_d("layer2.0.downsample.1.weight")
        'res3.0.shortcut.weight'
    """
    return _renamed(name, _deep_pooled)


def from_timm_clip(name: str) -> str | None:
    """Return the canonical name of a tensor of CLIP's ResNet in timm's naming.

    Example:
        >>> from_timm_clip("stages.0.0.shortcut.conv.bn.bias")
        'res2.0.shortcut.norm.bias'
    """
    return _renamed(name, _timm_clip)


def from_caffe2(name: str) -> str | None:
    """Return the canonical name of a Caffe2 blob; None for a blob of the solver or the classifier.

    Example:
        >>> from_caffe2("res2_0_branch2a_bn_beta")
        'res2.0.conv1.norm.bias'
    """
    canonical = _renamed(name, _caffe2)
    known = (".weight", ".bias", ".running_mean", ".running_var")
    return canonical if canonical and canonical.endswith(known) else None


def from_sequential(name: str) -> str | None:
    """Return the canonical name of a tensor of ``nn.Sequential(*resnet.children())``.

    Example:
        >>> from_sequential("4.0.conv1.weight")
        'res2.0.conv1.weight'
    """
    children = _sequential_children(name)
    return from_torchvision(children) if children != name else None


def from_transformers(name: str) -> str | None:
    """Return the canonical name of a tensor of transformers' ResNet, without ``resnet.``.

    Example:
        >>> from_transformers("encoder.stages.0.layers.1.layer.2.normalization.bias")
        'res2.1.conv3.norm.bias'
    """
    return _renamed(name, _transformers)


def from_soco_heads(name: str) -> str | None:
    """Return the name in a Mask R-CNN FPN for a tensor of SoCo's pretrained pyramid or box head.

    Example:
        >>> from_soco_heads("neck.lateral_convs.0.conv.weight")
        'backbone.fpn_lateral2.weight'
    """
    renamed = _soco(name)
    return renamed if renamed != name else None


def from_virtex_heads(name: str) -> str | None:
    """Return the name of a tensor of VirTex's textual heads, unchanged; None for any other.

    Example:
        >>> from_virtex_heads("backward_textual.output.bias")
        'backward_textual.output.bias'
    """
    return name if name.startswith(_VIRTEX_HEADS) else None


def to_torchvision(canonical: str) -> str:
    """Return torchvision's name for a backbone tensor, or CLIP's if torchvision has no such layer.

    Example:
        >>> to_torchvision("res2.0.shortcut.norm.bias")
        'layer1.0.downsample.1.bias'
    """
    return _to_torchvision(canonical)
