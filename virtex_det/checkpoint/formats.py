"""The families of published weights: how each is recognised, and the facts of its network."""

from typing import Any, NamedTuple

from virtex_det.checkpoint.names import (
    Rename,
    canonical_only,
    from_caffe2,
    from_deep_stem,
    from_resnet_d,
    from_sequential,
    from_soco_heads,
    from_timm_clip,
    from_torchvision,
    from_transformers,
    from_virtex_heads,
)


class Pixels(NamedTuple):
    """The pixel format that a network was trained with, in Detectron2's terms."""

    format: str  # channel order; "" if unknown
    mean: tuple[float, ...]  # in 0..255, per channel in that order
    std: tuple[float, ...]


class Format(NamedTuple):
    """A family of weights files. Depth and widths are not stated: they are read from the tensors.

    Attributes:
        name: the family's name in reports and in MODEL.WEIGHTS_FORMAT.
        marks: regular expressions; each matches some tensor's name, prefix included.
        absent: regular expressions; no tensor's name, prefix included, matches one.
        prefix: regular expression for the end of a network's prefix, without wrappers such as
            ``module.``.
        rename: maps a backbone name without its prefix to Detectron2's; None for other tensors.
        rename_rest: maps the name of any other tensor to that of a Detectron2 detector or of
            virtex_det's pretraining model.
        place: regular expression for the dotted keys above the tensors.
        over: regular expressions for other networks in the file; this one is preferred to them, as
            its authors do.
        detectron2_names: the other tensors have Detectron2's names too, so that heads can be
            loaded.
        pixels: the pixel formats that the family was trained with, the usual one first; empty if
            they vary.
        stride_in_1x1: whether a bottleneck strides in its first convolution; None if it varies.
        stem: MODEL.CAPTION_RESNET.STEM; None if only the tensors decide it.
        downsample: MODEL.CAPTION_RESNET.DOWNSAMPLE.
        also: other families whose files look the same; MODEL.WEIGHTS_FORMAT may name them.
        note: a remark for the load report.
        paper: the source of the family.
        licence: of the published weights or their code, if known.
    """

    name: str
    marks: tuple[str, ...]
    absent: tuple[str, ...] = ()
    prefix: str = ""
    rename: Rename = from_torchvision
    rename_rest: Rename | None = None
    place: str = ".*"
    over: tuple[str, ...] = ()
    detectron2_names: bool = False
    pixels: tuple[Pixels, ...] = ()
    stride_in_1x1: bool | None = None
    stem: str | None = None
    downsample: str | None = None
    also: tuple[str, ...] = ()
    note: str = ""
    paper: str = ""
    licence: str = ""


IMAGENET_RGB = Pixels("RGB", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
HALF_RGB = Pixels("RGB", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
CLIP_RGB = Pixels("RGB", mean=(122.7709, 116.7460, 104.0937), std=(68.5005, 66.6322, 70.3232))
MSRA_BGR = Pixels("BGR", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
RESNEXT_BGR = Pixels("BGR", mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))

CAFFE2 = "detectron2_caffe2"
_RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_BAG_OF_TRICKS = (
    "He et al., Bag of Tricks for Image Classification with Convolutional Neural Networks, "
    "CVPR 2019"
)
_CLIP = (
    "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, "
    "ICML 2021"
)


def _resnet(name: str, *, prefix: str = "", marks: tuple[str, ...] = (), **facts: Any) -> Format:
    """Return a family of plain ResNets with torchvision's names and pixels, under a prefix."""
    known: dict[str, Any] = {
        "pixels": (IMAGENET_RGB,),
        "stride_in_1x1": False,
        "stem": "basic",
        "downsample": "conv",
    }
    own_marks = (rf"^{prefix}conv1\.weight$", rf"^{prefix}layer1\.0\.conv1\.weight$")
    return Format(name, (*own_marks, *marks), prefix=prefix, **(known | facts))


def _deep_stem(name: str, *, marks: tuple[str, ...], **facts: Any) -> Format:
    """Return a family of ResNets with three convolutions in the stem, named as in timm."""
    return Format(
        name,
        (r"^(backbone\.)?(conv1|stem)\.0\.weight$", *marks),
        prefix=r"(?:backbone\.)?",
        pixels=(IMAGENET_RGB, HALF_RGB),
        stride_in_1x1=False,
        stem="deep",
        also=("timm", "mmpretrain"),
        paper=_BAG_OF_TRICKS,
        licence="Apache-2.0",
        **facts,
    )


def _clip(name: str, *, marks: tuple[str, ...], **facts: Any) -> Format:
    """Return a family of CLIP's ResNets, whose blocks have pools instead of strides."""
    return Format(name, marks, pixels=(CLIP_RGB,), stem="clip", downsample="clip", **facts)


# The first family that fits is taken, so families with a mark or prefix come before those without.
FORMATS = (
    _resnet(
        "virtex",
        prefix=r"visual\.cnn\.",
        rename_rest=from_virtex_heads,
        also=("redcaps",),
        paper="Desai and Johnson, VirTex: Learning Visual Representations from Textual "
        "Annotations, CVPR 2021",
        licence="MIT",
    ),
    _resnet(
        "icmlm",
        place=r"cnn",
        paper="Sariyildiz et al., Learning Visual Representations with Caption Annotations, "
        "ECCV 2020",
    ),
    _clip(
        "regionclip",
        prefix=r"backbone\.",
        marks=(r"^backbone\.conv3\.weight$", r"^backbone\.layer1\.0\.conv1\.weight$"),
        note="RegionCLIP's configs have PIXEL_MEAN and PIXEL_STD in 0..1; here they are in 0..255",
        paper="Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022",
    ),
    _clip(
        "clip",
        prefix=r"(?:visual\.)?",
        marks=(r"^(visual\.)?conv3\.weight$", r"^(visual\.)?layer1\.0\.conv1\.weight$"),
        also=("openai_clip", "open_clip"),
        paper=_CLIP,
        licence="MIT",
    ),
    _clip(
        "timm_clip",
        rename=from_timm_clip,
        marks=(r"^stem\.conv3\.conv\.weight$", r"^stages\.0\.0\.conv1_1x1\.conv\.weight$"),
        paper=_CLIP,
        licence="MIT",
    ),
    _deep_stem(
        "resnet_d",
        marks=(r"^(backbone\.)?layer2\.0\.downsample\.2\.weight$",),
        rename=from_resnet_d,
        downsample="avg_shortcut",
    ),
    _deep_stem(
        "resnet_deep_stem",
        marks=(r"^(backbone\.)?layer1\.0\.conv1\.weight$",),
        absent=(r"\.downsample\.2\.",),
        rename=from_deep_stem,
        downsample="conv",
        note="the stem of ResNet-C and S",
    ),
    _resnet(
        "moco",
        prefix=r"encoder_q\.",
        over=(r"encoder_k\.$",),
        also=("moco_v1", "moco_v2"),
        paper="He et al., Momentum Contrast for Unsupervised Visual Representation Learning, "
        "CVPR 2020",
        licence="CC BY-NC 4.0",
    ),
    _resnet(
        "moco_v3",
        prefix=r"base_encoder\.",
        over=(r"momentum_encoder\.$",),
        paper="Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, "
        "ICCV 2021",
        licence="CC BY-NC 4.0",
    ),
    _resnet(
        "soco",
        prefix=r"encoder\.",
        place=r"model|model_ema",
        marks=(r"^head\.",),
        over=(r"encoder_k\.$",),
        rename_rest=from_soco_heads,
        note="FPN and box head are loaded too, if the detector's have the same shapes",
        paper="Wei et al., Aligning Pretraining for Detection via Object-Level Contrastive "
        "Learning, NeurIPS 2021",
    ),
    _resnet(
        "pixpro",
        prefix=r"encoder\.",
        place=r"model",
        marks=(r"^encoder_k\.conv1\.weight$",),
        over=(r"encoder_k\.$",),
        note="only the backbone is loaded",
        paper="Xie et al., Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised "
        "Visual Representation Learning, CVPR 2021",
    ),
    _resnet(
        "dino",
        prefix=r"backbone\.",
        place=r"teacher",
        over=(r"^student\.",),
        note="the teacher is loaded, which its authors evaluate",
        paper="Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021",
        licence="Apache-2.0",
    ),
    _resnet(
        "barlow_twins",
        prefix=r"backbone\.",
        place=r"model",
        marks=(r"^projector\.", r"^bn\.running_mean$"),
        paper="Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, "
        "ICML 2021",
        licence="MIT",
    ),
    _resnet(
        "mmselfsup",
        prefix=r"backbone\.",
        marks=(r"^(neck|head)\.",),
        over=(r"encoder_k\.0\.$",),
        also=("mmpretrain", "densecl"),
        paper="OpenMMLab's self-supervised learning toolbox and benchmark, 2021",
        licence="Apache-2.0",
    ),
    _resnet(
        "vicreg",
        prefix=r"backbone\.",
        place=r"model",
        marks=(r"^projector\.",),
        paper="Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022",
    ),
    _resnet(
        "vissl",
        prefix=r"(?:trunk\.)?(?:base_model\.)?_feature_blocks\.",
        also=("pirl",),
        paper="Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant "
        "Representations, CVPR 2020",
        licence="MIT",
    ),
    _resnet(
        "detr",
        prefix=r"backbone\.0\.body\.",
        paper="Carion et al., End-to-End Object Detection with Transformers, ECCV 2020",
        licence="Apache-2.0",
    ),
    _resnet(
        "torchvision_detector",
        prefix=r"backbone\.body\.",
        note="only the backbone is loaded, since its heads differ from Detectron2's",
        paper=_RESNET,
        licence="BSD-3-Clause",
    ),
    _resnet(
        "open_clip_timm",
        prefix=r"visual\.trunk\.",
        pixels=(CLIP_RGB, IMAGENET_RGB, HALF_RGB),
        note="open_clip's own transforms use CLIP's pixels unless its config says otherwise",
        paper=_CLIP,
        licence="MIT",
    ),
    _resnet(
        "lightning",
        prefix=r"(?:backbone|encoder)\.",
        over=(r"momentum_(backbone|encoder)\.$",),
        also=("solo_learn", "mmselfsup", "mmpretrain"),
        paper="da Costa et al., solo-learn: A Library of Self-supervised Methods, JMLR 2022",
        licence="MIT",
    ),
    _resnet(
        "swav",
        marks=(r"^(projection_head|prototypes)\.",),
        also=("deepcluster_v2", "sela_v2"),
        paper="Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster "
        "Assignments, NeurIPS 2020",
    ),
    _resnet(
        "torchvision",
        marks=(r"^fc\.weight$",),
        pixels=(IMAGENET_RGB, HALF_RGB),
        also=("timm",),
        note="a few of timm's networks were trained with mean = std = 127.5, which no file shows",
        paper=_RESNET,
        licence="BSD-3-Clause",
    ),
    _resnet(
        "resnet_backbone",
        pixels=(IMAGENET_RGB, HALF_RGB),
        also=(
            "virtex_backbone",
            "dino",
            "barlow_twins",
            "vicreg",
            "densecl",
            "moco",
            "vissl",
            "torchvision",
            "timm",
        ),
        note="backbones of many sources look the same: torchvision's names without a classifier",
        paper=_RESNET,
    ),
    Format(
        "lightly",
        marks=(r"^0\.weight$", r"^4\.0\.conv1\.weight$"),
        rename=from_sequential,
        pixels=(IMAGENET_RGB,),
        stride_in_1x1=False,
        stem="basic",
        downsample="conv",
        also=("sequential",),
        note="the children of torchvision's ResNet in nn.Sequential, as in lightly's examples",
        paper=_RESNET,
    ),
    Format(
        "transformers",
        marks=(r"^embedder\.embedder\.convolution\.weight$",),
        rename=from_transformers,
        pixels=(IMAGENET_RGB,),
        stride_in_1x1=False,
        stem="basic",
        downsample="conv",
        paper=_RESNET,
        licence="Apache-2.0",
    ),
    Format(
        CAFFE2,
        marks=(r"^conv1_w$", r"^res2_0_branch2a_w$"),
        rename=from_caffe2,
        pixels=(MSRA_BGR, RESNEXT_BGR),
        stride_in_1x1=True,
        stem="basic",
        downsample="conv",
        also=("detectron2_pkl", "msra"),
        paper=_RESNET,
    ),
    Format(
        "virtex_det_pretraining",
        marks=(r"^backbone\.stem\.", r"^backbone\.res5\."),
        absent=(r"^roi_heads\.", r"^proposal_generator\."),
        prefix=r"backbone\.",
        rename=canonical_only,
        detectron2_names=True,
    ),
    Format(
        "detector",
        marks=(r"^backbone\.(bottom_up\.)?stem\.",),
        prefix=r"backbone\.(?:bottom_up\.)?",
        rename=canonical_only,
        detectron2_names=True,
    ),
    Format(
        "detectron2_torchvision",
        marks=(r"^stem\.conv1\.weight$", r"^stem\.fc\."),
        rename=canonical_only,
        pixels=(IMAGENET_RGB,),
        stride_in_1x1=False,
        stem="basic",
        downsample="conv",
        also=("detectron2_pkl",),
        note="converted from torchvision's names for Detectron2",
        paper=_RESNET,
    ),
    Format(
        "detectron2_backbone",
        marks=(r"^stem\.conv1\.weight$", r"^res2\.0\.conv1\.weight$", r"^res5\."),
        rename=canonical_only,
        also=("detectron2_pkl",),
        note="the file shows neither pixels nor strides; INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD and "
        "STRIDE_IN_1X1 stay as the config sets them",
    ),
)

# Files with the model's own names: a backbone that is not a ResNet, and a run's own checkpoint.
# They are not in FORMATS, since they are not recognised by their content alone.
SAME_NAMES = Format("the model's own names", marks=(), rename=canonical_only, detectron2_names=True)
OWN_CHECKPOINT = SAME_NAMES._replace(name="own checkpoint")
