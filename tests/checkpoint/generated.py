"""Several hundred weights files, each with its result: network A is loaded whole, or an error."""

import pickle
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.checkpoint import layouts
from tests.checkpoint.conftest import torchvision_tensors

Tensors = dict[str, Tensor]
Make = Callable[[Tensors, Tensors], Any]
Write = Callable[[Any, Path], Path]


class Case(NamedTuple):
    """A file that is made from two networks A and B of the same shapes, by Detectron2's names."""

    name: str
    make: Make
    refused: tuple[str, ...] | None = None  # texts of the error message; None: A is loaded
    report: str = ""  # a text of the report's table
    write: Write | None = None  # None: the content is recognised without a file
    format: str = ""
    prefix: str = ""


def cases() -> list[Case]:
    """Return all cases, each with its own name."""
    return [
        *prefixes_and_wrappers(),
        *wrappers_inside(),
        *namings(),
        *numbers(),
        *containers(),
        *two_networks(),
        *chosen_networks(),
        *halves_of_two(),
        *wrong_values(),
        *not_whole(),
    ]


# One network

PREFIXES = (
    "",
    *"model. net. network. resnet. model.backbone. backbone. encoder. encoder_q.".split(),
    *"base_encoder. visual.cnn. student_backbone. backbone.body. backbone.0.body.".split(),
    *"visual.trunk. _feature_blocks. trunk.base_model._feature_blocks.".split(),
    *"model.visual.cnn. online_network.encoder.net.".split(),
)
WRAPPERS = (
    "",
    *"module. _orig_mod. module._orig_mod. _orig_mod.module. _forward_module.module.".split(),
    *"_fsdp_wrapped_module. module.module.".split(),
)
KEYS = cycle(
    (
        (),
        ("model",),
        ("state_dict",),
        ("module",),
        ("network",),
        ("checkpoint", "model"),
        ("ema_model",),
    )
)


def nested(keys: tuple[str, ...], content: Any) -> Any:
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": layouts.OPTIMIZER}
    return content


def prefixes_and_wrappers() -> Iterator[Case]:
    for prefix in PREFIXES:
        for wrapper in WRAPPERS:
            for raw in dict.fromkeys((wrapper + prefix, prefix + wrapper)):
                keys = next(KEYS)
                yield Case(
                    f"{'/'.join(keys)}|{raw}",
                    lambda a, b, p=raw, k=keys: nested(k, torchvision_tensors(a, p)),
                )


def wrappers_inside() -> Iterator[Case]:
    inside = {
        "checkpointed blocks": lambda name: name.replace(
            "layer1.0.", "layer1._checkpoint_wrapped_module.0."
        ),
        "sharded stages": lambda name: name.replace(".0.", "._fsdp_wrapped_module.0."),
        "compiled stem": lambda name: name.replace("conv1.weight", "conv1._orig_mod.weight", 1),
        "compiled stages": lambda name: name.replace("layer3.", "layer3._orig_mod.").replace(
            "layer4.", "layer4.module."
        ),
        "all at once": lambda name: (
            "_orig_mod.module." + name.replace("layer2.", "layer2._fsdp_wrapped_module._orig_mod.")
        ),
    }
    for kind, rename in inside.items():
        for prefix in ("", "encoder_q.", "model."):
            yield Case(
                f"{kind} under {prefix}",
                lambda a, b, r=rename, p=prefix: {
                    "state_dict": {
                        p + r(name): value for name, value in torchvision_tensors(a).items()
                    }
                },
            )


def children(backbone: Tensors) -> Tensors:
    index = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}}
    parts = {name: name.partition(".") for name in torchvision_tensors(backbone)}
    return {
        f"{index[parts[n][0]]}.{parts[n][2]}": value
        for n, value in torchvision_tensors(backbone).items()
    }


def transformers(backbone: Tensors) -> Tensors:
    names = dict(zip(torchvision_tensors(backbone), backbone, strict=True))
    renamed = layouts.transformers_names(list(names))
    return {renamed[name]: backbone[source] for name, source in names.items()}


def caffe2(backbone: Tensors) -> Tensors:
    return {
        layouts.caffe2_name(name): value
        for name, value in layouts.without_counters(backbone).items()
    }


def fpn(backbone: Tensors, root: str = "") -> Tensors:
    return layouts.under(f"{root}backbone.bottom_up.", backbone) | {
        f"{root}roi_heads.x.weight": layouts.ONES
    }


def c4(backbone: Tensors, root: str = "") -> Tensors:
    named = {
        f"{'roi_heads.' if n.startswith('res5') else 'backbone.'}{n}": value
        for n, value in backbone.items()
    }
    return layouts.under(root, named | {"proposal_generator.x.weight": layouts.ONES})


def own(backbone: Tensors, root: str = "") -> Tensors:
    return layouts.under(f"{root}backbone.", backbone) | {f"{root}textual.weight": layouts.ONES}


NAMINGS: dict[str, Callable[[Tensors], Tensors]] = {
    "torchvision": torchvision_tensors,
    "children": children,
    "transformers": transformers,
    "caffe2": caffe2,
    "detectron2": dict,
    "fpn": fpn,
    "c4": c4,
    "own": own,
}


def namings() -> Iterator[Case]:
    for kind, rename in NAMINGS.items():
        for wrapper in ("", "module.", "_orig_mod.module.", "model.", "module.net."):
            yield Case(
                f"{kind} under {wrapper!r}",
                lambda a, b, r=rename, w=wrapper: {"model": layouts.under(w, r(a))},
            )


def numbers() -> Iterator[Case]:
    for kind in NAMINGS:
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            yield Case(
                f"{kind} as {dtype}",
                lambda a, b, r=NAMINGS[kind], d=dtype: {
                    name: value.to(d) if value.is_floating_point() else value
                    for name, value in r(a).items()
                },
            )


# On disk


def write_zip(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


def write_legacy(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "w.pth.tar", _use_new_zipfile_serialization=False)
    return folder / "w.pth.tar"


def write_arrays(content: Tensors, folder: Path) -> Path:
    (folder / "w.pkl").write_bytes(
        pickle.dumps({"model": {name: value.numpy() for name, value in content.items()}})
    )
    return folder / "w.pkl"


def write_safetensors(content: Tensors, folder: Path) -> Path:
    save_file(
        {name: value.contiguous() for name, value in content.items()}, folder / "w.safetensors"
    )
    return folder / "w.safetensors"


def write_folder(content: Tensors, folder: Path) -> Path:
    write_safetensors(content, folder).rename(folder / "model.safetensors")
    return folder


def write_shards(content: Tensors, folder: Path) -> Path:
    layouts.write_shards(content, folder)
    return folder / "model.safetensors.index.json"


def write_sharded_folder(content: Tensors, folder: Path) -> Path:
    return write_shards(content, folder).parent


def write_torch_shards(content: Tensors, folder: Path) -> Path:
    layouts.write_shards(content, folder, ".bin")
    return folder / "pytorch_model.bin.index.json"


WRITERS = (
    write_zip,
    write_legacy,
    write_arrays,
    write_safetensors,
    write_folder,
    write_shards,
    write_sharded_folder,
    write_torch_shards,
)


def containers() -> Iterator[Case]:
    for write in WRITERS:
        for kind in ("torchvision", "transformers", "fpn"):
            yield Case(
                f"{kind} by {write.__name__}", lambda a, b, r=NAMINGS[kind]: r(a), write=write
            )


# Two networks

# Prefixes of two networks that could each be meant.
RIVALS = (
    ("encoder.", "backbone."),
    ("student.", "teacher."),
    ("online_encoder.", "target_encoder."),
    ("a.", "b."),
    ("backbone.", "model.backbone."),
    ("net1.", "net2."),
    ("models.0.", "models.1."),
    ("", "encoder."),
    ("visual.cnn.", "textual.encoder."),
    ("student_backbone.", "teacher_backbone."),
    ("module.", ""),
    ("encoder_k.", "momentum_encoder."),
    ("branch.left.", "branch.right."),
    ("backbone.body.", "backbone.0.body."),
    ("_orig_mod.", "module."),
    ("encoder.a.", "encoder."),
)
RIVAL_KEYS = (
    ("student", "teacher2"),
    ("model", "target"),
    ("netA", "netB"),
    ("online", "target"),
    ("state_dict", "best"),
    ("generator", "discriminator"),
    ("model", "momentum_model"),
)
# Prefixes of two networks; the family prefers the first one.
CHOICES = (
    ("encoder_q.", "encoder_k."),
    ("base_encoder.", "momentum_encoder."),
    ("backbone.", "momentum_backbone."),
    ("encoder.", "momentum_encoder."),
    ("encoder_q._orig_mod.", "encoder_k._orig_mod."),
    ("ema_model.", "model."),
    ("module.encoder_q.", "module.encoder_k."),
    ("swa_model.module.", "model."),
    ("model_ema.module.", "model."),
)
# Keys of averages and of the weights that were averaged.
CHOICE_KEYS = (
    ("state_dict_ema", "state_dict"),
    ("model_ema", "model"),
    ("ema", "model"),
    ("ema_state_dict", "state_dict"),
    ("swa_state", "model"),
    ("averaged_model", "model"),
    ("ema_model", "model"),
    ("swa_state_dict", "state_dict"),
)


def two_networks() -> Iterator[Case]:
    for first, second in RIVALS:
        for one, two in ((first, second), (second, first)):
            yield Case(
                f"{one!r} and {two!r}",
                lambda a, b, f=one, s=two: {
                    "state_dict": torchvision_tensors(a, f) | torchvision_tensors(b, s)
                },
                (f"state_dict.{one}", f"state_dict.{two}", "MODEL.WEIGHTS_PREFIX"),
            )
    for one, two in RIVAL_KEYS:
        yield Case(
            f"keys {one} and {two}",
            lambda a, b, f=one, s=two: {f: torchvision_tensors(a), s: torchvision_tensors(b)},
            (f"{one}.", f"{two}.", "MODEL.WEIGHTS_PREFIX"),
        )
    for rename in (fpn, c4, own):
        yield Case(
            f"two of {rename.__name__}",
            lambda a, b, r=rename: {"model": r(a, "modelTeacher.") | r(b, "modelStudent.")},
            (
                "model.modelTeacher.backbone.",
                "model.modelStudent.backbone.",
                "MODEL.WEIGHTS_PREFIX",
            ),
        )
    for kind in ("children", "transformers", "caffe2", "detectron2"):
        yield Case(
            f"{kind} beside torchvision's",
            lambda a, b, r=NAMINGS[kind]: layouts.under("a.", r(a)) | torchvision_tensors(b, "b."),
            ("a.", "b.", "MODEL.WEIGHTS_PREFIX"),
        )
    yield Case(
        "res5 in two places",
        lambda a, b: {
            "model": fpn(a) | {f"roi_heads.{n}": v for n, v in b.items() if n.startswith("res5")}
        },
        report="",
    )
    yield Case(
        "a list of two", lambda a, b: [torchvision_tensors(a), torchvision_tensors(b)], ("0.", "1.")
    )
    yield Case(
        "the same network twice",
        lambda a, b: (
            torchvision_tensors(a, "backbone.") | torchvision_tensors(dict(a), "model.backbone.")
        ),
        report="not loaded: model.backbone.",
    )
    yield Case(
        "a copy of the same network",
        lambda a, b: (
            torchvision_tensors(a, "x.")
            | torchvision_tensors({n: v.clone() for n, v in a.items()}, "y.")
        ),
        report="not loaded: y.",
    )


def chosen_networks() -> Iterator[Case]:
    yield from networks_chosen_by_their_family()
    yield from counted_averages()
    yield from other_averages()
    yield from networks_chosen_by_prefix()


def networks_chosen_by_their_family() -> Iterator[Case]:
    for first, second in CHOICES:
        for turned in (False, True):
            yield Case(
                f"{first} before {second}{' behind it' if turned else ''}",
                lambda a, b, f=first, s=second, t=turned: {"state_dict": _in_order(f, a, s, b, t)},
                report=f"not loaded: state_dict.{second}",
            )
    for first, second in CHOICE_KEYS:
        yield Case(
            f"key {first} before {second}",
            lambda a, b, f=first, s=second: {s: torchvision_tensors(b), f: torchvision_tensors(a)},
            report=f"averaged weights; not loaded: {second}.",
        )


def counted_averages() -> Iterator[Case]:
    yield Case(
        "averaged model",
        lambda a, b: torchvision_tensors(a, "module.") | {"n_averaged": torch.tensor(7)},
        report="n_averaged 7",
    )
    yield Case(
        "averaged model of DDP",
        lambda a, b: (
            torchvision_tensors(a, "module.module.") | {"module.n_averaged": torch.tensor(7)}
        ),
        report="n_averaged 7",
    )
    yield Case(
        "raw and averaged, counted",
        lambda a, b: {"net": torchvision_tensors(b), "other": _averaged(a, 7)},
        report="n_averaged 7",
    )
    yield Case(
        "raw and averaged, not yet begun",
        lambda a, b: {"net": torchvision_tensors(a), "ema": _averaged(b, 0)},
        ("net.", "ema.module.", "MODEL.WEIGHTS_PREFIX"),
    )


def other_averages() -> Iterator[Case]:
    yield Case(
        "Lightning's averaged state",
        lambda a, b: {
            "state_dict": torchvision_tensors(b, "model."),
            "callbacks": {"EMA": {"ema_weights": torchvision_tensors(a, "model.")}},
        },
        report="not loaded: state_dict.model.",
    )
    yield Case(
        "averages without names",
        lambda a, b: {
            "state_dict": torchvision_tensors(a),
            "ema": {"shadow_params": list(b.values())},
        },
        report="the averages in ema.shadow_params have no names and are not loaded",
    )
    yield Case(
        "Lightning's WeightAveraging",
        lambda a, b: {
            "current_model_state": torchvision_tensors(b, "model."),
            "state_dict": torchvision_tensors(a, "model."),
        },
        report="averaged weights of Lightning's WeightAveraging; "
        "not loaded: current_model_state.model.",
    )
    for name, prefix in (
        ("model_ema.model", "model_ema.model*"),
        ("ema_backbone_", "ema_backbone_*"),
    ):
        yield Case(
            f"averages named {prefix}",
            lambda a, b, n=name: (
                torchvision_tensors(a) | {n + _without_dots(k, n): v for k, v in _tv(b).items()}
            ),
            report=f"the averages in {prefix} have no names and are not loaded",
        )
    yield Case(
        "averages of the parameters alone",
        lambda a, b: {
            "model": torchvision_tensors(b),
            "model_ema": layouts.without_statistics(torchvision_tensors(a)),
        },
        ("  model.", "  model_ema.", "MODEL.WEIGHTS_PREFIX"),
    )


def networks_chosen_by_prefix() -> Iterator[Case]:
    for prefix in ("model_ema", "model_ema.", "model_ema.module"):
        yield Case(
            f"{prefix} by hand, wrappers below it",
            lambda a, b: {
                "model": torchvision_tensors(b),
                "model_ema": torchvision_tensors(a, "module."),
            },
            prefix=prefix,
        )
    for first, second in RIVALS[:10]:
        for wanted in (first, second):
            yield Case(
                f"{wanted!r} of {first!r} and {second!r} by hand",
                lambda a, b, f=first, s=second, w=wanted: (
                    torchvision_tensors(a if w == f else b, f)
                    | torchvision_tensors(a if w == s else b, s)
                ),
                prefix=wanted or ".",
            )
    yield Case(
        "a prefix with a family",
        lambda a, b: torchvision_tensors(a, "x.y.") | torchvision_tensors(b, "x.z."),
        prefix="x.y",
        format="moco",
    )
    yield Case(
        "a prefix that is not there",
        lambda a, b: torchvision_tensors(a, "student."),
        ("no network under MODEL.WEIGHTS_PREFIX 'studnet.'", "student."),
        prefix="studnet.",
    )


def _in_order(first: str, a: Tensors, second: str, b: Tensors, turned: bool) -> Tensors:
    one, two = torchvision_tensors(a, first), torchvision_tensors(b, second)
    return two | one if turned else one | two


def _averaged(tensors: Tensors, count: int) -> Tensors:
    return torchvision_tensors(tensors, "module.") | {"n_averaged": torch.tensor(count)}


def halves_of_two() -> Iterator[Case]:
    places = (
        ("encoder.", "backbone."),
        ("", "module."),
        ("a.", "b."),
        ("backbone.", "model.backbone."),
        ("module.", ""),
    )
    cuts: dict[str, tuple[str, ...]] = {
        "the stem": ("stem",),
        "stem and res2": ("stem", "res2"),
        "all but res5": ("stem", "res2", "res3", "res4"),
        "the norms": (),
    }
    for first, second in places:
        for kind, stages in cuts.items():
            yield Case(
                f"{kind} under {first!r}, the rest under {second!r}",
                lambda a, b, f=first, s=second, c=stages: _split(a, b, f, s, c),
                (),
            )
    yield Case(
        "torchvision's stem and Detectron2's stages",
        lambda a, b: (
            _part(torchvision_tensors(a), ("conv1", "bn1", "layer1"))
            | _part(b, ("res3", "res4", "res5"))
        ),
        ("missing",),
    )
    yield Case(
        "a backbone and another's last stage in the head",
        lambda a, b: (
            _part(
                layouts.under("backbone.", a), ("backbone.stem", "backbone.res2", "backbone.res3")
            )
            | layouts.under("roi_heads.", _part(b, ("res5",)))
        ),
        ("missing",),
    )
    yield Case(
        "stem and res2 of one beside the other whole",
        lambda a, b: (
            torchvision_tensors(_part(b, ("stem", "res2")), "encoder.")
            | torchvision_tensors(a, "backbone.")
        ),
        report="not loaded: encoder.",
    )
    yield Case(
        "CLIP's tower beside a text tower with a layer1",
        lambda a, b: (
            torchvision_tensors(a, "visual.") | torchvision_tensors(_part(b, ("res2", "res3")))
        ),
    )


def _split(a: Tensors, b: Tensors, first: str, second: str, stages: tuple[str, ...]) -> Tensors:
    def is_first(name: str) -> bool:
        return name.startswith(stages) if stages else ".norm." not in name

    one = {name: value for name, value in a.items() if is_first(name)}
    two = {name: value for name, value in b.items() if not is_first(name)}
    return torchvision_tensors(one, first) | torchvision_tensors(two, second)


def _part(tensors: Tensors, begins: tuple[str, ...]) -> Tensors:
    return {name: value for name, value in tensors.items() if name.startswith(begins)}


# Values and what is missing

LAYERS = ("stem.conv1.weight", "res4.2.conv2.weight", "res5.0.shortcut.weight")


def _with(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[-1] = value
        return changed

    return change


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (_with(float("nan")), "NaN"),
    "infinity": (_with(float("inf")), "infinite"),
    "minus infinity": (_with(-float("inf")), "infinite"),
    "beyond float": (lambda t: t.double() * 1e300, "beyond float32"),
    "bool": (lambda t: t > 2.5, "bool, not float"),
    "int8": (lambda t: (t * 10).to(torch.int8), "int8, not float"),
    "uint8": (lambda t: (t * 10).to(torch.uint8), "uint8, not float"),
    "int64": (lambda t: (t * 1000).long(), "int64, not float"),
    "bits of bfloat16": (lambda t: t.bfloat16().view(torch.uint16), "bits of bfloat16"),
    "complex": (lambda t: t.to(torch.complex64), "complex64, not float"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn, not float"),
    "zeros": (torch.zeros_like, "a convolution with 0 in all"),
    "one value": (lambda t: torch.full_like(t, 0.25), "a convolution with 0.25 in all"),
    "sparse": (lambda t: t.to_sparse(), "sparse"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantised"),
}


def wrong_values() -> Iterator[Case]:
    for layer in LAYERS:
        for kind, (change, words) in CHANGES.items():
            yield Case(
                f"{kind} in {layer}",
                lambda a, b, n=layer, c=change: torchvision_tensors(a | {n: c(a[n])}, "backbone."),
                (
                    words,
                    "nothing was loaded",
                    f"backbone.{list(torchvision_tensors({layer: layouts.ONES}))[0]}",
                ),
            )
    for layer in ("stem.conv1.norm", "res3.1.conv2.norm", "res5.2.conv3.norm"):
        for leaf, value, words in (
            ("running_var", -1.0, "a variance of -1"),
            ("running_var", float("nan"), "NaN"),
            ("running_mean", float("inf"), "infinite"),
            ("weight", float("nan"), "NaN"),
        ):
            name = f"{layer}.{leaf}"
            yield Case(
                f"{value} in {name}",
                lambda a, b, n=name, v=value: torchvision_tensors(a | {n: _with(v)(a[n])}),
                (words, "nothing was loaded"),
            )
    for count in (torch.tensor(-1), torch.tensor(float("nan")), torch.tensor(True)):
        yield Case(
            f"{count} batches",
            lambda a, b, c=count: torchvision_tensors(a) | {"bn1.num_batches_tracked": c},
            ("bn1.num_batches_tracked", "a count of batches from 0"),
        )
    yield Case(
        "variances of zero",
        lambda a, b: torchvision_tensors(a | {"res2.0.conv1.norm.running_var": torch.zeros(4)}),
        ("a variance of 0 in all",),
    )
    yield Case(
        "a bias of Caffe2's first convolution",
        lambda a, b: caffe2(a) | {"conv1_b": torch.full((4,), 0.5)},
        ("conv1_b of the file is not in the model",),
    )
    yield Case("zeros for a bias", lambda a, b: caffe2(a) | {"conv1_b": torch.zeros(4)})
    yield Case(
        "a bias in a convolution",
        lambda a, b: torchvision_tensors(a) | {"layer2.0.conv2.bias": torch.ones(8)},
        ("layer2.0.conv2.bias of the file is not in the model",),
    )
    yield Case(
        "an object for a tensor",
        lambda a, b: torchvision_tensors(a) | {"layer1.0.conv2.weight": None},
        ("layer1.0.conv2.weight in the file, which is not a plain tensor",),
    )
    yield Case(
        "a text for a tensor",
        lambda a, b: torchvision_tensors(a) | {"layer1.0.conv2.weight": "x"},
        ("missing",),
    )


def _tv(tensors: Tensors) -> Tensors:
    return layouts.without_counters(torchvision_tensors(tensors))


def _without_dots(name: str, prefix: str) -> str:
    return name.replace(".", "_" if prefix.endswith("_") else "")


def _renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {new if name == old else name: value for name, value in tensors.items()}


def _folded(tensors: Tensors) -> Tensors:
    weights = {name: value for name, value in tensors.items() if value.dim() == 4}
    return weights | {
        name.replace("weight", "bias"): torch.rand(len(value)) for name, value in weights.items()
    }


def _named_without_wrappers(tensors: Tensors, name: str) -> Tensor:
    plain = name.replace("_orig_mod.", "").replace("_checkpoint_wrapped_module.", "")
    return torchvision_tensors(tensors)[plain]


def not_whole() -> Iterator[Case]:
    yield from missing_tensors()
    yield from extra_layers()
    yield from layers_with_and_without_wrappers()
    yield from layers_of_other_networks()
    yield from other_convolutions()
    yield from files_without_a_network()


def missing_tensors() -> Iterator[Case]:
    for layer in (
        "res2.1.conv1.weight",
        "res4.5.conv3.norm.running_var",
        "stem.conv1.norm.bias",
        "res5.0.shortcut.weight",
    ):
        for kind in ("torchvision", "fpn", "transformers"):
            yield Case(
                f"{kind} without {layer}",
                lambda a, b, n=layer, r=NAMINGS[kind]: r(
                    {name: v for name, v in a.items() if name != n}
                ),
                ("1 missing", "is missing"),
            )
        yield Case(
            f"another shape of {layer}",
            lambda a, b, n=layer: torchvision_tensors(a | {n: torch.rand(3, *a[n].shape)}),
            ("1 of another shape",),
        )
    for stage in ("res3", "res5"):
        yield Case(
            f"no {stage}",
            lambda a, b, s=stage: torchvision_tensors(
                {name: v for name, v in a.items() if not name.startswith(s)}
            ),
            ("missing",),
        )


def extra_layers() -> Iterator[Case]:
    yield Case(
        "an extra block",
        lambda a, b: torchvision_tensors(
            a | {f"res4.6{n[6:]}": v for n, v in a.items() if n.startswith("res4.5.")}
        ),
        (
            "15 of the file not in the model",
            "layer3.6.conv1.weight of the file is not in the model",
        ),
    )
    for name in (
        "maxpool.1.filt",
        "maxpool.filt",
        "relu.weight",
        "layer3.0.relu.weight",
        "layer1.0.bn1.IN.weight",
    ):
        yield Case(
            f"a layer {name} that the model does not have",
            lambda a, b, n=name: torchvision_tensors(a, "net.") | {f"net.{n}": layouts.ONES},
            (f"net.{name} of the file is not in the model",),
        )
    yield Case(
        "squeeze and excitation",
        lambda a, b: torchvision_tensors(a) | {"layer1.0.se.fc1.weight": layouts.ONES},
        ("layer1.0.se.fc1.weight of the file is not in the model",),
    )
    yield Case(
        "blur pools with a filter",
        lambda a, b: torchvision_tensors(a) | {"layer2.0.conv3.filt": layouts.ONES},
        ("layer2.0.conv3.filt of the file is not in the model",),
    )


def layers_with_and_without_wrappers() -> Iterator[Case]:
    for name in (
        "layer1._orig_mod.0.conv1.weight",
        "layer4.2._checkpoint_wrapped_module.bn3.running_mean",
    ):
        yield Case(
            f"{name} wrapped and not",
            lambda a, b, n=name: (
                torchvision_tensors(a) | {n: torch.rand_like(_named_without_wrappers(a, n))}
            ),
            ("in two places", name),
        )


def layers_of_other_networks() -> Iterator[Case]:
    for name, words in (
        ("layer1.0.se.fc1.weight", "attention"),
        ("layer2.0.conv2.weight_mask", "prune.remove"),
        ("layer1.0.convs.0.weight", "Res2Net"),
        ("layer1.1.conv3.lora_A", "LoRA"),
        ("layer1.0.bn1.IN.bias", "IBN"),
    ):
        yield Case(
            f"the message explains {name}",
            lambda a, b, n=name: torchvision_tensors(a, "net.") | {f"net.{n}": layouts.ONES},
            (words, f"net.{name} of the file is not in the model"),
        )
    for name, words in (
        ("layer1.0.conv1.weight_orig", "prune.remove"),
        ("layer1.0.conv1.parametrizations.weight.original0", "remove_parametrizations"),
    ):
        yield Case(
            f"{name} instead of a weight",
            lambda a, b, n=name: _renamed(torchvision_tensors(a), "layer1.0.conv1.weight", n),
            ("not a weights file of a known family", words),
        )


def other_convolutions() -> Iterator[Case]:
    yield Case(
        "norms folded into convolutions",
        lambda a, b: _folded(torchvision_tensors(a)),
        ("norms are folded",),
    )
    for channels in (1, 4):
        yield Case(
            f"a first convolution of {channels} channels",
            lambda a, b, c=channels: (
                torchvision_tensors(a) | {"conv1.weight": torch.rand(4, c, 7, 7)}
            ),
            (f"first convolution has {channels} input channels, the model's 3",),
        )


def files_without_a_network() -> Iterator[Case]:
    yield Case(
        "empty tensors of ZeRO-3",
        lambda a, b: {"module": {n: torch.empty(0) for n in torchvision_tensors(a)}},
        ("of another shape",),
    )
    yield Case("no tensor", lambda a, b: {"model": {}}, ("not a weights file of a known family",))
    yield Case(
        "names of stages alone",
        lambda a, b: _part(torchvision_tensors(a), ("layer",)),
        ("not a weights file of a known family",),
    )
