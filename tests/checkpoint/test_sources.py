"""Files in folders, shards and the home directory, in other containers, and with configs beside."""

import collections
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoint.conftest import torchvision_tensors
from tests.checkpoint.layouts import transformers_names, write_shards
from virtex_det.checkpoint.companions import told_beside
from virtex_det.checkpoint.formats import IMAGENET_RGB
from virtex_det.checkpoint.loading import load_weights
from virtex_det.checkpoint.recognition import recognise
from virtex_det.checkpoint.sources import open_weights
from virtex_det.errors import UserError


class StateDict(dict):
    """A dict with a class of its own."""


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        open_weights(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    "kind", [StateDict, collections.OrderedDict, lambda pairs: collections.defaultdict(int, pairs)]
)
def test_a_subclass_of_dict_is_read_as_a_dict(fpn, save, backbone_tensors, kind):
    tensors = torchvision_tensors(backbone_tensors)
    assert len(load_weights(fpn(), save({"model": kind(tensors)})).loaded) == len(backbone_tensors)
    assert len(load_weights(fpn(), save(kind(tensors))).loaded) == len(backbone_tensors)


def test_the_error_for_tensors_of_pickle_dump_names_them(tmp_path, backbone_tensors):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(torchvision_tensors(backbone_tensors)))
    message = refusal(tmp_path / "w.pkl")
    assert (
        "pickle.dump" in message and "torch.save" in message and "download it again" not in message
    )


def test_the_home_directory_is_expanded(monkeypatch, save, tmp_path, backbone_tensors):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(torchvision_tensors(backbone_tensors), "r50.pth")
    assert open_weights("~/r50.pth").file == tmp_path / "r50.pth"


def test_the_error_for_an_invalid_file_name_is_one_message():
    assert "cannot be read: File name too long" in refusal("a" * 5000)


@pytest.fixture
def shards(tmp_path, backbone_tensors):
    """A folder with a sharded model, and its index."""
    write_shards(torchvision_tensors(backbone_tensors), tmp_path)
    return tmp_path / "model.safetensors.index.json"


def test_the_hash_of_shards_is_of_all_of_them(shards):
    before = open_weights(str(shards)).sha256()
    shard = sorted(shards.parent.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert open_weights(str(shards)).sha256() != before and len(before) == 64


@pytest.mark.parametrize(
    "name", ["w.pth", "model.safetensors.index.json", "model-00002-of-00002.safetensors"]
)
def test_a_file_replaced_after_it_was_read_gives_no_hash(name, shards, save, backbone_tensors):
    opened = open_weights(
        str(save(torchvision_tensors(backbone_tensors), name) if name == "w.pth" else shards)
    )
    file = opened.file.with_name(name)
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)
    with pytest.raises(UserError, match="changed after it was read"):
        opened.sha256()


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_very_long_json_is_not_read(name, shards):
    with shards.with_name(name).open("ab") as file:
        file.truncate(1 << 40)  # a hole, which takes no disk
    if name == "config.json":
        assert open_weights(str(shards)).weights.assumed
    else:
        assert "has more than" in refusal(shards)


def test_a_missing_shard_is_named(shards):
    (shards.parent / "model-00002-of-00002.safetensors").unlink()
    assert "names model-00002-of-00002.safetensors, which is not in its folder" in refusal(shards)


def test_an_index_with_a_tensor_that_its_shards_lack_is_refused(shards):
    index = json.loads(shards.read_text())
    index["weight_map"]["layer9.weight"] = "model-00001-of-00002.safetensors"
    shards.write_text(json.dumps(index))
    assert "layer9.weight is in model-00001-of-00002.safetensors, but it is not" in refusal(shards)


@pytest.mark.parametrize("place", ["../elsewhere.safetensors", "/etc/passwd", 3, ""])
def test_an_index_reads_only_files_in_its_folder(shards, place):
    index = json.loads(shards.read_text())
    index["weight_map"]["conv1.weight"] = place
    shards.write_text(json.dumps(index))
    assert "not a file name in its folder" in refusal(shards)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', "[" * 100_000, "\x00"])
def test_a_damaged_index_is_an_error(shards, content):
    shards.write_text(content)
    assert "model.safetensors.index.json" in refusal(shards)


@pytest.mark.parametrize("name", ["weight_map", "conv1.weight"])
def test_an_index_with_a_name_twice_is_refused(shards, name):
    index = json.loads(shards.read_text())["weight_map"]
    twice = json.dumps(index)[:-1] + ', "conv1.weight": "model-00001-of-00002.safetensors"}'
    both = f'"weight_map": {json.dumps(index)}, "weight_map": {json.dumps(index)}'
    shards.write_text(f'{{"weight_map": {twice}}}' if name == "conv1.weight" else f"{{{both}}}")
    assert f"{name!r} twice" in refusal(shards)


def test_a_folder_with_two_models_of_accelerate_is_refused(tmp_path, backbone_tensors):
    for name in ("model.safetensors", "model_1.safetensors"):
        save_file(
            {n: v.clone() for n, v in torchvision_tensors(backbone_tensors).items()},
            tmp_path / name,
        )
    assert "name one: model.safetensors, model_1.safetensors" in refusal(tmp_path)


def test_a_folder_with_two_models_is_refused(shards):
    shards.rename(shards.with_name("a.safetensors.index.json"))
    write_shards({"x": torch.ones(1), "y": torch.ones(1)}, shards.parent)
    assert "several models" in refusal(shards.parent)


# What stands beside a file


@pytest.fixture
def beside(tmp_path, backbone_tensors):
    """Writes torchvision's tensors, with a config.json and more beside them."""

    def write(config: dict, tensors: dict | None = None, **others: dict) -> str:
        for name, content in {"config": config, **others}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        path = tmp_path / "pytorch_model.bin"
        torch.save(tensors or torchvision_tensors(backbone_tensors), path)
        return str(path)

    return write


def hugging_face(backbone_tensors):
    renamed = transformers_names(list(torchvision_tensors(backbone_tensors)))
    return {renamed[name]: value for name, value in torchvision_tensors(backbone_tensors).items()}


@pytest.mark.parametrize(
    "config",
    [
        *(
            {"architecture": name}
            for name in ("resnetblur50", "resnetaa50", "seresnet50", "resnet50t", "ecaresnet50d")
        ),
        {"architecture": "resnet50", "model_args": {"output_stride": 16}},
        {"architecture": "resnet50", "model_args": {"act_layer": "silu"}},
        {"architecture": "resnet50", "model_args": {"aa_layer": "blur", "num_classes": 3}},
        {"pretrained_cfg": {"architecture": "resnetblur18"}},
    ],
)
def test_timms_config_says_that_the_same_tensors_are_another_network(beside, config):
    message = refusal(beside(config))
    assert "config.json beside it" in message and "nothing was loaded" in message


WIDTHS = {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 4}
NETWORKS = {
    **dict.fromkeys(("resnet50", "tv_resnet50", "gluon_resnet50_v1b"), WIDTHS),
    "resnext50_32x4d": {"NUM_GROUPS": 2, "WIDTH_PER_GROUP": 4},
    "wide_resnet50_2": {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 8},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_timms_config_gives_the_pixels_of_a_plain_network(beside, pretraining, name):
    tensors = torchvision_tensors(pretraining(**NETWORKS[name]).backbone.state_dict())
    weights = open_weights(
        beside(
            {"architecture": name, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}, tensors
        )
    ).weights
    assert [entry.mean for entry in weights.format.pixels] == [(127.5,) * 3]
    assert weights.assumed == "" and name in weights.format.note


@pytest.mark.parametrize(
    "config",
    [
        {"dilation": True},
        {"backbone_kwargs": {"output_stride": 16}},
        {"model_type": "detr", "backbone": "resnetblur50"},
    ],
)
def test_a_detectors_config_says_that_its_backbone_is_another_network(beside, config):
    assert "which no tensor shows" in refusal(beside(config))


def test_open_clips_config_says_which_tower_and_which_pixels(beside, tmp_path, backbone_tensors):
    tensors = torchvision_tensors(backbone_tensors, "visual.trunk.")
    config = {
        "model_cfg": {"vision_cfg": {"timm_model_name": "resnet50"}},
        "preprocess_cfg": {"mean": [0.5] * 3},
    }
    config["preprocess_cfg"]["std"] = [0.5] * 3
    path = beside({}, tensors, open_clip_config=config)
    assert open_weights(path).weights.format.pixels[0].mean == (127.5,) * 3
    config["model_cfg"]["vision_cfg"]["timm_model_name"] = "resnetblur50"
    assert "timm's resnetblur50" in refusal(beside({}, tensors, open_clip_config=config))


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50d", "resnet50c", "resnext50_32x4d", "wide_resnet50_2", "resnet50_clip"],
)
def test_a_config_of_another_network_is_ignored_and_reported(beside, name):
    config = {"architecture": name, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    weights = open_weights(beside(config)).weights
    assert f"of another network, {name}" in weights.assumed
    assert weights.format.pixels[0] == IMAGENET_RGB


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet50", "pretrained_cfg": {"architecture": "resnetblur50"}},
        {"architecture": "resnet" + "9" * 5000},
        {"architecture": "resnet\uff15\uff10"},
        {
            "model_type": "rt_detr",
            "backbone_config": {"model_type": "rt_detr_resnet", "hidden_act": "silu"},
        },
    ],
)
def test_a_config_that_names_a_second_or_an_unknown_network_is_refused(beside, config):
    assert "a network that this package cannot build" in refusal(beside(config))


@pytest.mark.parametrize(
    "mean",
    [
        [10**400, 0.5, 0.5],
        [float("nan")] * 3,
        [float("inf")] * 3,
        [-0.5] * 3,
        [True] * 3,
        [123.675] * 3,
        "abc",
    ],
)
def test_an_invalid_mean_is_ignored(beside, mean):
    weights = open_weights(
        beside({"architecture": "resnet50", "pretrained_cfg": {"mean": mean, "std": [0.5] * 3}})
    ).weights
    assert (
        weights.format.pixels[0] == IMAGENET_RGB
        and "with an invalid mean and std" in weights.format.note
    )


@pytest.mark.parametrize("std", [[0.0] * 3, [-1, 1, 1], [0.5] * 2])
def test_an_invalid_std_is_ignored(beside, std):
    config = {"architecture": "resnet50", "pretrained_cfg": {"mean": [0.5] * 3, "std": std}}
    assert open_weights(beside(config)).weights.format.pixels[0] == IMAGENET_RGB


def test_a_config_with_a_repeated_key_is_ignored_and_reported(beside, tmp_path):
    path = beside({})
    (tmp_path / "config.json").write_text(
        '{"architecture": "resnetblur50", "architecture": "resnet50"}'
    )
    assert "config.json beside the file cannot be read" in open_weights(path).weights.assumed


@pytest.mark.parametrize("config", [{"hidden_act": "gelu"}, {"downsample_in_first_stage": True}])
def test_transformers_config_says_that_it_is_another_network(beside, backbone_tensors, config):
    path = beside({"model_type": "resnet"} | config, hugging_face(backbone_tensors))
    assert "config.json beside it has" in refusal(path)


def test_transformers_config_has_the_strides_and_its_processor_the_pixels(beside, backbone_tensors):
    processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    config = {"model_type": "resnet", "downsample_in_bottleneck": True}
    path = beside(config, hugging_face(backbone_tensors), preprocessor_config=processor)
    entry = open_weights(path).weights.format
    assert entry.stride_in_1x1 and entry.pixels[0].std == (63.75,) * 3


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"architecture": 3}', '{"model_type": "bert"}', "[" * 100_000]
)
def test_with_an_uninformative_config_the_facts_are_assumed(beside, tmp_path, text):
    path = beside({})
    (tmp_path / "config.json").write_text(text)
    assert "no blur pools" in open_weights(path).weights.assumed


def test_assumed_facts_are_in_the_report_and_the_table(fpn, save, backbone_tensors):
    report = load_weights(fpn(), save(torchvision_tensors(backbone_tensors)))
    for words in ("ReLU", "max pool", "no blur pools", "no dilation", "strides in the 3x3"):
        assert words in report.assumed and words in report.table() and words in report.to_json()


def test_the_zoos_record_has_the_pixels(backbone_tensors):
    weights = recognise(torchvision_tensors(backbone_tensors), "weights.pth")
    told = told_beside(Path("nowhere.pth"), weights, "virtex://timm_resnet50d.ra4_e3600_r224_in1k")
    assert [entry.mean for entry in told.format.pixels] == [
        (127.5,) * 3
    ] and "no blur pools" in told.assumed
    told = told_beside(Path("nowhere.pth"), weights, "virtex://bicaptioning_R_50_L1_H2048")
    assert told.format == weights.format


def test_the_zoos_record_has_the_pools(backbone_tensors):
    weights = recognise(torchvision_tensors(backbone_tensors), "weights.pth")
    told = told_beside(Path("nowhere.pth"), weights, "virtex://timm_resnet50d.ra4_e3600_r224_in1k")
    assert (weights.format.downsample, told.format.downsample) == ("conv", "avg_shortcut")
