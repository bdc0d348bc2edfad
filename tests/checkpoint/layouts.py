"""Every layout of published weights: keys, prefixes, wrappers, dtypes and file formats.

A layout converts an original network to the content of a file; `write` writes the file.
"""

import argparse
import copy
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Content = Callable[[nn.Module], Any]


class Config(dict):
    """A stand-in for config classes of VISSL, Lightning and OpenMMLab, which readers may lack."""

    __getattr__ = dict.__getitem__


class Layout(NamedTuple):
    """How one published file is laid out, and the family that it must be recognised as."""

    family: str
    original: str
    content: Content
    write: Callable[[Any, Path], None] = torch.save


ONES = torch.ones(2, 3)
OPTIMIZER = {"state": {0: {"momentum_buffer": ONES}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
ARGUMENTS = argparse.Namespace(lr=0.1)
TEXT = {
    f"textual.{name}": ONES
    for name in ("visual_projection.weight", "embedding.words.weight", "output.weight")
}


def bare(network: nn.Module) -> Tensors:
    """The network without its classifier."""
    return OrderedDict(
        (name, value) for name, value in network.state_dict().items() if not name.startswith("fc.")
    )


def full(network: nn.Module) -> Tensors:
    return OrderedDict(network.state_dict())


def under(prefix: str, tensors: Tensors, **others: Tensor) -> Tensors:
    """The tensors under a prefix, and other tensors unchanged."""
    return {prefix + name: value for name, value in tensors.items()} | others


def other(tensors: Tensors) -> Tensors:
    """Tensors of another network of the same names: a momentum encoder, a student."""
    return {name: value + 1 for name, value in tensors.items()}


def virtex(network: nn.Module, prefix: str = "") -> Tensors:
    return under(prefix, under("visual.cnn.", bare(network)) | TEXT | under("backward_", TEXT))


def redcaps(network: nn.Module) -> Tensors:
    layers = {f"textual.transformer.layers.{i}.linear1.weight": ONES for i in range(6)}
    return under("visual.cnn.", bare(network)) | TEXT | layers


def clip(network: nn.Module) -> Tensors:
    text = {
        "positional_embedding": ONES,
        "token_embedding.weight": ONES,
        "logit_scale": torch.tensor(4.6),
    }
    return under("visual.", full(network)) | text | {"transformer.resblocks.0.ln_1.weight": ONES[0]}


class ClipModel(nn.Module):
    """OpenAI's model: the image side under ``visual``, the sizes as buffers."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.token_embedding = nn.Embedding(4, 2)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(64))

    def forward(self, images: Tensor) -> Tensor:
        return self.visual(images)


def write_torchscript(network: nn.Module, path: Path) -> None:
    model = ClipModel(copy.deepcopy(network)).eval()
    traced = torch.jit.trace(model, torch.rand(1, 3, 64, 64), check_trace=False)
    traced.half().save(path)


def write_safetensors(tensors: Tensors, path: Path) -> None:
    save_file({name: value.clone() for name, value in tensors.items()}, path)


def write_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content: Any, path: Path, protocol: int = 4) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file, protocol)


def write_old_pickle(content: Any, path: Path) -> None:
    write_pickle(content, path, protocol=2)


def halves(tensors: Tensors) -> Tensors:
    return {
        name: value.half() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def doubles(tensors: Tensors) -> Tensors:
    return {
        name: value.double() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def arrays(tensors: Tensors) -> dict[str, Any]:
    return {name: value.numpy() for name, value in tensors.items()}


def without_counters(tensors: Tensors) -> Tensors:
    return {
        name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")
    }


def detectron2_name(name: str) -> str:
    """torchvision's name of a backbone tensor in Detectron2's words."""
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"^(conv|bn)1", r"stem.\g<1>1", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def without_statistics(tensors: Tensors) -> Tensors:
    return {
        name: value for name, value in without_counters(tensors).items() if "running" not in name
    }


def canonical(network: nn.Module) -> Tensors:
    return {detectron2_name(name): value for name, value in bare(network).items()}


def caffe2(network: nn.Module) -> dict[str, Any]:
    named = {
        caffe2_name(name): value for name, value in without_counters(canonical(network)).items()
    }
    return arrays(named | {"conv1_b": torch.zeros(64), "fc1000_w": ONES, "fc1000_b": ONES})


def caffe2_name(name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    norm = {
        "weight": "bn_gamma",
        "bias": "bn_beta",
        "running_mean": "bn_running_mean",
        "running_var": "bn_running_var",
    }
    leaf = norm[leaf] if layer.endswith("norm") else "w"
    layer = layer.removesuffix(".norm").replace(
        "stem.conv1", "res_conv1" if leaf != "w" else "conv1"
    )
    for number, letter in (("conv1", "2a"), ("conv2", "2b"), ("conv3", "2c"), ("shortcut", "1")):
        layer = layer.replace(f".{number}", f"_branch{letter}")
    return f"{layer.replace('.', '_')}_{leaf}"


def converted(network: nn.Module, **others: Any) -> dict[str, Any]:
    """What the converters of torchvision, MoCo, DenseCL and PixPro write for Detectron2."""
    model = arrays(canonical(network) | others)
    return {"model": model, "__author__": "MOCO", "matching_heuristics": True}


def detector(network: nn.Module) -> Tensors:
    heads = {"backbone.fpn_lateral2.weight": ONES, "roi_heads.box_predictor.cls_score.weight": ONES}
    return under("backbone.bottom_up.", without_counters(canonical(network)), **heads)


def detector_and_heads(network: nn.Module) -> dict[str, Any]:
    return {"model": detector(network), "optimizer": OPTIMIZER, "iteration": 9}


def c4_detector(network: nn.Module) -> Tensors:
    tensors = canonical(network).items()
    model = {
        ("roi_heads." if name.startswith("res5") else "backbone.") + name: value
        for name, value in tensors
    }
    return model | {
        "roi_heads.res5.norm.weight": ONES[0],
        "proposal_generator.rpn_head.conv.weight": ONES,
    }


def mm_stem(tensors: Tensors) -> Tensors:
    """timm's deep stem by OpenMMLab's names."""
    return {
        re.sub("^bn1", "stem.7", re.sub("^conv1", "stem", name)): value
        for name, value in tensors.items()
    }


def solo_learn(network: nn.Module, prefix: str = "backbone.") -> dict[str, Any]:
    rest = {"classifier.weight": ONES, "projector.0.weight": ONES}
    return {
        "epoch": 399,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": under(prefix, bare(network))
        | under("momentum_" + prefix, other(bare(network)))
        | rest,
        "hyper_parameters": Config(method="byol"),
        "callbacks": {Config: {"best": 3}},
    }


def children(network: nn.Module) -> Tensors:
    """The names of nn.Sequential(*resnet.children())."""
    index = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}}
    parts = {name: name.partition(".") for name in bare(network)}
    return {
        f"{index[parts[name][0]]}.{parts[name][2]}": value for name, value in bare(network).items()
    }


def transformers(network: nn.Module) -> Tensors:
    """The names of transformers' ResNetModel."""
    renamed = transformers_names(list(bare(network)))
    return {renamed[name]: value for name, value in bare(network).items()}


def transformers_names(names: list[str]) -> dict[str, str]:
    """Transformers' names by torchvision's names."""
    renamed = {}
    for original in names:
        name = re.sub("^bn1", "embedder.embedder.normalization", original)
        name = re.sub("^conv1", "embedder.embedder.convolution", name)
        name = re.sub(
            r"^layer(\d)", lambda match: f"encoder.stages.{int(match[1]) - 1}.layers", name
        )
        name = re.sub(r"\.conv(\d)", lambda match: f".layer.{int(match[1]) - 1}.convolution", name)
        name = re.sub(r"\.bn(\d)", lambda match: f".layer.{int(match[1]) - 1}.normalization", name)
        name = name.replace("downsample.0", "shortcut.convolution").replace(
            "downsample.1", "shortcut.normalization"
        )
        renamed[original] = name
    return renamed


def write_shards(tensors: Tensors, folder: Path, suffix: str = ".safetensors") -> None:
    """Write two files and their index, as transformers does for large models."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names, weight_map = list(tensors), {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"{stem}-{number:05}-of-00002{suffix}"
        content = {name: tensors[name].clone() for name in part}
        save_file(content, folder / file) if suffix == ".safetensors" else torch.save(
            content, folder / file
        )
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))


def soco(network: nn.Module) -> Tensors:
    fpn = {
        f"neck.fpn_convs.{level}.conv.weight": torch.full((8, 8, 3, 3), 5.0) for level in range(4)
    }
    return (
        under("encoder.", bare(network))
        | fpn
        | {"head.fc1.weight": ONES, "head.bn1.weight": ONES[0]}
    )


V, TV, B, M = "virtex", "torchvision", "resnet_backbone", "moco"

LAYOUTS: dict[str, Layout] = {
    # Caption-pretrained
    "virtex training": Layout(
        V,
        "ResNet-50",
        lambda n: {
            "model": virtex(n),
            "optimizer": OPTIMIZER,
            "scheduler": {"last_epoch": 3},
            "iteration": 500000,
        },
    ),
    "virtex zoo": Layout(V, "ResNet-50", lambda n: {"model": virtex(n)}),
    "virtex zoo R-101": Layout(V, "ResNet-101", lambda n: {"model": virtex(n)}),
    "virtex zoo w2x": Layout(V, "ResNet-50 of twice the width", lambda n: {"model": virtex(n)}),
    "virtex zoo v0.9, before zip files": Layout(
        V, "ResNet-50", lambda n: {"model": virtex(n)}, write_legacy
    ),
    "virtex full model, flat": Layout(V, "ResNet-50", virtex),
    "virtex of DDP": Layout(V, "ResNet-50", lambda n: {"model": virtex(n, "module.")}),
    "virtex of torch.compile in DDP": Layout(
        V, "ResNet-50", lambda n: {"model": virtex(n, "module._orig_mod.")}
    ),
    "virtex hub, flat": Layout(B, "ResNet-50", bare),
    "virtex hub v0.9, wrapped": Layout(B, "ResNet-50", lambda n: {"model": bare(n)}),
    "virtex hub, halves": Layout(B, "ResNet-50", lambda n: halves(bare(n))),
    "virtex hub, doubles": Layout(B, "ResNet-50", lambda n: doubles(bare(n))),
    "redcaps": Layout(V, "ResNet-50", lambda n: {"model": redcaps(n), "iteration": 1}),
    "icmlm": Layout(
        "icmlm", "ResNet-50", lambda n: {"cnn": bare(n), "fc": {"weight": ONES}, "epoch": 9}
    ),
    "icmlm with a classifier": Layout("icmlm", "ResNet-50", lambda n: {"cnn": full(n)}),
    "own pretraining": Layout(
        "virtex_det_pretraining",
        "ResNet-50",
        lambda n: {
            "model": under("backbone.", canonical(n)) | TEXT,
            "trainer": {"iteration": 9},
            "iteration": 9,
        },
    ),
    "openai clip RN50": Layout("clip", "CLIP RN50", lambda n: n, write_torchscript),
    "openai clip RN101": Layout("clip", "CLIP RN101", lambda n: n, write_torchscript),
    "openai clip RN50x4": Layout("clip", "CLIP RN50x4", lambda n: n, write_torchscript),
    "openai clip RN50x16": Layout("clip", "CLIP RN50x16", lambda n: n, write_torchscript),
    "openai clip RN50x64": Layout("clip", "CLIP RN50x64", lambda n: n, write_torchscript),
    "openai clip, tensors alone": Layout("clip", "CLIP RN50", lambda n: halves(clip(n))),
    "open_clip": Layout("clip", "CLIP RN50", clip),
    "open_clip training": Layout(
        "clip",
        "CLIP RN50",
        lambda n: {
            "epoch": 3,
            "name": "x",
            "state_dict": under("module.", clip(n)),
            "optimizer": OPTIMIZER,
        },
    ),
    "open_clip RN101": Layout("clip", "CLIP RN101", lambda n: {"state_dict": clip(n)}),
    "open_clip, safetensors": Layout("clip", "CLIP RN50", clip, write_safetensors),
    "open_clip, image side alone": Layout("clip", "CLIP RN50", full),
    "timm clip": Layout("timm_clip", "timm's CLIP RN50", full),
    "timm clip, safetensors": Layout("timm_clip", "timm's CLIP RN50", full, write_safetensors),
    "regionclip": Layout(
        "regionclip",
        "CLIP RN50",
        lambda n: {
            "model": under("backbone.", full(n)) | {"lang_encoder.ln_final.weight": ONES},
            "iteration": 1,
        },
    ),
    "regionclip RN50x4": Layout(
        "regionclip",
        "CLIP RN50x4",
        lambda n: {"model": under("backbone.", full(n)) | {"lang_encoder.ln_final.weight": ONES}},
    ),
    # Supervised
    "torchvision V1 and V2": Layout(TV, "ResNet-50", full),
    "torchvision of 2017": Layout(
        TV, "ResNet-50", lambda n: without_counters(full(n)), write_legacy
    ),
    "torchvision R-18": Layout(TV, "ResNet-18", full),
    "torchvision R-101": Layout(TV, "ResNet-101", full),
    "torchvision wide": Layout(TV, "ResNet-50 of twice the width", full),
    "torchvision, training of DDP": Layout(
        TV,
        "ResNet-50",
        lambda n: {"epoch": 90, "state_dict": under("module.", full(n)), "optimizer": OPTIMIZER},
    ),
    "torchvision reference training": Layout(
        TV,
        "ResNet-50",
        lambda n: {"model": full(n), "args": ARGUMENTS, "lr_scheduler": {"last_epoch": 1}},
    ),
    "timm": Layout(TV, "timm's ResNet-50", full),
    "timm, safetensors": Layout(TV, "timm's ResNet-50", full, write_safetensors),
    "timm, averaged": Layout(
        TV,
        "timm's ResNet-50",
        lambda n: {
            "arch": "resnet50",
            "state_dict": other(full(n)),
            "state_dict_ema": full(n),
            "args": ARGUMENTS,
        },
    ),
    "timm 50c": Layout("resnet_deep_stem", "ResNet-50-C", full),
    "timm 50s": Layout("resnet_deep_stem", "ResNet-50-S", full),
    "timm 50d": Layout("resnet_d", "ResNet-50-D", full),
    "timm 50d, safetensors": Layout("resnet_d", "ResNet-50-D", full, write_safetensors),
    "mmpretrain v1c": Layout(
        "resnet_deep_stem",
        "ResNet-50-C",
        lambda n: {"state_dict": under("backbone.", mm_stem(bare(n)))},
    ),
    "mmpretrain v1d": Layout(
        "resnet_d", "ResNet-50-D", lambda n: {"state_dict": under("backbone.", mm_stem(bare(n)))}
    ),
    # Self-supervised
    "moco v1": Layout(
        M,
        "ResNet-50",
        lambda n: {
            "arch": "resnet50",
            "optimizer": OPTIMIZER,
            "state_dict": under("module.encoder_q.", full(n))
            | under("module.encoder_k.", other(full(n)))
            | {"module.queue": ONES, "module.queue_ptr": torch.zeros(1)},
        },
    ),
    "moco v2": Layout(
        M,
        "ResNet-50",
        lambda n: {
            "state_dict": under("module.encoder_k.", other(bare(n)))
            | under("module.encoder_q.", bare(n) | {"fc.0.weight": ONES, "fc.2.weight": ONES})
        },
        write_legacy,
    ),
    "moco, extracted": Layout(
        B, "ResNet-50", lambda n: bare(n) | {"fc.0.weight": ONES, "fc.2.weight": ONES}
    ),
    "moco, converted for Detectron2": Layout(
        "detectron2_torchvision",
        "ResNet-50",
        lambda n: converted(n, **{"stem.fc.weight": ONES}),
        write_pickle,
    ),
    "moco v3": Layout(
        "moco_v3",
        "ResNet-50",
        lambda n: {
            "epoch": 300,
            "state_dict": under("module.momentum_encoder.", other(bare(n)))
            | under(
                "module.base_encoder.", bare(n) | {"fc.0.weight": ONES, "fc.1.running_mean": ONES}
            )
            | {"module.predictor.0.weight": ONES},
        },
    ),
    "swav": Layout(
        "swav",
        "ResNet-50",
        lambda n: under(
            "module.",
            bare(n),
            **{"module.projection_head.0.weight": ONES, "module.prototypes.weight": ONES},
        ),
    ),
    "swav training": Layout(
        "swav",
        "ResNet-50 of twice the width",
        lambda n: {
            "epoch": 1,
            "state_dict": under("module.", bare(n), **{"module.prototypes.weight": ONES}),
        },
    ),
    "deepcluster v2": Layout(
        "swav",
        "ResNet-50",
        lambda n: under("module.", bare(n), **{"module.prototypes.prototypes0.weight": ONES}),
    ),
    "densecl, extracted": Layout(
        B, "ResNet-50", lambda n: {"state_dict": bare(n), "author": "OpenSelfSup"}
    ),
    "densecl, epoch": Layout(
        "mmselfsup",
        "ResNet-50",
        lambda n: {
            "meta": {"config": "text", "time": Config()},
            "state_dict": under("backbone.", bare(n))
            | under("encoder_q.0.", bare(n))
            | under("encoder_k.0.", other(bare(n)))
            | {"neck.mlp.0.weight": ONES, "queue": ONES},
        },
    ),
    "pixpro": Layout(
        "pixpro",
        "ResNet-50",
        lambda n: {
            "opt": ARGUMENTS,
            "model": under("module.encoder.", bare(n))
            | under("module.encoder_k.", other(bare(n)))
            | {"module.projector.linear1.weight": ONES, "module.value_transform.weight": ONES},
        },
    ),
    "soco": Layout(
        "soco", "ResNet-50", lambda n: {"model": under("module.", soco(n)), "opt": ARGUMENTS}
    ),
    "soco, averaged": Layout("soco", "ResNet-50", lambda n: {"model_ema": soco(n)}),
    "dino": Layout(B, "ResNet-50", bare),
    "dino, full file": Layout(
        "dino",
        "ResNet-50",
        lambda n: {
            "student": under(
                "module.backbone.", other(bare(n)), **{"module.head.mlp.0.weight": ONES}
            ),
            "teacher": under("module.backbone.", bare(n), **{"module.head.mlp.0.weight": ONES}),
            "args": ARGUMENTS,
            "dino_loss": {"center": ONES},
        },
    ),
    "dino, teacher not of DDP": Layout(
        "dino",
        "ResNet-50",
        lambda n: {
            "student": under("module.backbone.", other(bare(n))),
            "teacher": under("backbone.", bare(n)),
        },
        write_legacy,
    ),
    "barlow twins": Layout(B, "ResNet-50", bare),
    "barlow twins, full file": Layout(
        "barlow_twins",
        "ResNet-50",
        lambda n: {
            "epoch": 1000,
            "model": under(
                "module.backbone.",
                bare(n),
                **{"module.projector.0.weight": ONES, "module.bn.running_mean": ONES},
            ),
        },
    ),
    "vicreg": Layout(B, "ResNet-50", bare),
    "vicreg, full file": Layout(
        "vicreg",
        "ResNet-50",
        lambda n: {
            "model": under("module.backbone.", bare(n), **{"module.projector.0.weight": ONES}),
            "optimizer": OPTIMIZER,
        },
    ),
    "vissl": Layout(
        "vissl",
        "ResNet-50",
        lambda n: {
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": under("_feature_blocks.", bare(n)),
                        "heads": {"0.weight": ONES},
                    }
                }
            },
            "config": Config(OPTIMIZER=Config(name="sgd")),
            "iteration": 3,
        },
    ),
    "vissl, converted": Layout(
        "vissl", "ResNet-50", lambda n: {"model_state_dict": under("_feature_blocks.", bare(n))}
    ),
    "vissl, plain": Layout(B, "ResNet-50", lambda n: {"model_state_dict": bare(n)}),
    "vissl, from Caffe2": Layout(
        "detectron2_caffe2", "MSRA's ResNet-50", lambda n: {"blobs": caffe2(n)}, write_pickle
    ),
    "solo-learn": Layout("lightning", "ResNet-50", solo_learn),
    "solo-learn, older": Layout("lightning", "ResNet-50", lambda n: solo_learn(n, "encoder.")),
    "mmselfsup": Layout(
        "mmselfsup",
        "ResNet-50",
        lambda n: {
            "meta": {"seed": 0},
            "state_dict": under("backbone.", bare(n), **{"head.fc.weight": ONES}),
        },
    ),
    "mmselfsup, extracted": Layout(
        B, "ResNet-50", lambda n: {"meta": Config(), "state_dict": bare(n)}
    ),
    "mmpretrain": Layout(
        "mmselfsup",
        "ResNet-50",
        lambda n: {
            "message_hub": Config(),
            "param_schedulers": [Config()],
            "state_dict": under(
                "backbone.", bare(n), **{"head.fc.weight": ONES, "head.fc.bias": ONES}
            ),
        },
    ),
    # Others' detectors, towers and libraries
    "lightly": Layout(
        "lightly",
        "ResNet-50",
        lambda n: {"state_dict": under("backbone.", children(n), criterion=ONES)},
    ),
    "transformers": Layout(
        "transformers", "ResNet-50", lambda n: under("resnet.", transformers(n)), write_safetensors
    ),
    "transformers R-18": Layout("transformers", "ResNet-18", transformers),
    "torchvision Faster R-CNN": Layout(
        "torchvision_detector",
        "ResNet-50",
        lambda n: (
            under("backbone.body.", without_counters(bare(n)))
            | {"rpn.head.cls_logits.weight": ONES}
        ),
    ),
    "detr": Layout(
        "detr",
        "ResNet-50",
        lambda n: {
            "model": under("backbone.0.body.", without_counters(bare(n)))
            | {"query_embed.weight": ONES}
        },
    ),
    "open_clip with a timm tower": Layout(
        "open_clip_timm",
        "timm's ResNet-50",
        lambda n: under("visual.trunk.", full(n)),
        write_safetensors,
    ),
    # Detectron2
    "detectron2 MSRA": Layout("detectron2_caffe2", "MSRA's ResNet-50", caffe2, write_old_pickle),
    "detectron2 torchvision": Layout(
        "detectron2_torchvision",
        "ResNet-50",
        lambda n: converted(n, **{"stem.fc.weight": ONES, "stem.fc.bias": ONES}),
        write_pickle,
    ),
    "pixpro, converted for Detectron2": Layout(
        "detectron2_backbone", "ResNet-50", converted, write_old_pickle
    ),
    "detectron2 zoo": Layout(
        "detector",
        "ResNet-50",
        lambda n: {"model": arrays(detector(n)), "__author__": "Detectron2 Model Zoo"},
        write_pickle,
    ),
    "detectron2 training": Layout("detector", "ResNet-50", detector_and_heads),
    "detectron2 C4 training": Layout(
        "detector", "ResNet-50", lambda n: {"model": c4_detector(n), "iteration": 9}
    ),
}
