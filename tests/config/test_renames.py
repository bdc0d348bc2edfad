"""Old names of config keys: their conversion to new names, and errors."""

import logging

import pytest
import yaml

from tests.earlier_config import earlier_config
from virtex_det.config import get_cfg, leaves, load_config, override, plain_leaves
from virtex_det.config.checks import check_config
from virtex_det.config.renames import OLD_NAMES
from virtex_det.errors import UserError

BASE = "pretrain/_base_bicaptioning_R_50_L1_H1024.yaml"
LOCTEX = "pretrain/loctex/loctex_R_50.yaml"
CLIP = "detectron2/coco_segm_clip_init_1x.yaml"
SCENES = "detectron2/scenes_segm.yaml"
BFLOAT16 = {"ENABLED": True, "DTYPE": "bfloat16"}


def write(path, text):
    path.write_text(text)
    return path


def rate(cfg):
    return cfg.SOLVER.BASE_LR * cfg.SOLVER.BACKBONE_MULTIPLIER


def test_every_new_name_is_a_key_and_no_old_one_is():
    known = {key for key, _ in leaves(get_cfg())}
    assert known.isdisjoint(OLD_NAMES)
    assert known.issuperset(new for news in OLD_NAMES.values() for new in news)


@pytest.mark.parametrize("value", ["True", True])
def test_bf16_is_mixed_precision_in_bfloat16(value):
    assert load_config(SCENES, {"MODEL.BF16": value}).SOLVER.AMP == BFLOAT16
    assert override(load_config(SCENES), ["MODEL.BF16", value]).SOLVER.AMP == BFLOAT16


def test_bf16_false_leaves_float16_on_and_switches_bfloat16_off():
    assert load_config(BASE, {"MODEL.BF16": False}).SOLVER.AMP == {
        "ENABLED": True,
        "DTYPE": "float16",
    }
    bf16 = load_config(SCENES, {"MODEL.BF16": True})
    assert not override(bf16, {"MODEL.BF16": False}).SOLVER.AMP.ENABLED


@pytest.mark.parametrize(
    "overrides",
    [
        ["SOLVER.BACKBONE_LR", "0.3"],
        ["SOLVER.BACKBONE_LR", 0.3, "SOLVER.BASE_LR", "0.007"],
        {"SOLVER.BASE_LR": 0.013, "SOLVER.BACKBONE_LR": 0.3},
    ],
)
def test_the_backbones_rate_is_met_to_the_last_digit_whatever_the_base_rate(overrides):
    assert rate(load_config(BASE, overrides)) == 0.3


def test_a_rate_in_a_file_holds_when_the_base_rate_is_overridden(tmp_path):
    file = write(tmp_path / "own.yaml", f"_BASE_: {BASE}\nSOLVER:\n  BACKBONE_LR: 0.3\n")
    assert rate(load_config(file, {"SOLVER.BASE_LR": 0.5})) == 0.3


def test_a_backbone_rate_of_zero_is_the_base_rate():
    assert load_config(BASE, {"SOLVER.BACKBONE_LR": 0}).SOLVER.BACKBONE_MULTIPLIER == 1


def test_the_value_set_last_wins_under_either_name(tmp_path):
    old = write(
        tmp_path / "old.yaml",
        f"_BASE_: {CLIP}\nMODEL:\n  BF16: True\nSOLVER:\n  BACKBONE_LR: 0.3\n",
    )
    assert rate(load_config(old)) == 0.3
    assert load_config(old, {"SOLVER.BACKBONE_MULTIPLIER": 0.5}).SOLVER.BACKBONE_MULTIPLIER == 0.5
    assert not load_config(old, {"SOLVER.AMP.ENABLED": False}).SOLVER.AMP.ENABLED
    new = "SOLVER:\n  BACKBONE_MULTIPLIER: 0.25\n  AMP:\n    ENABLED: False\n"
    above = load_config(write(tmp_path / "new.yaml", f"_BASE_: old.yaml\n{new}"))
    assert (above.SOLVER.BACKBONE_MULTIPLIER, above.SOLVER.AMP.ENABLED) == (0.25, False)
    write(tmp_path / "base.yaml", f"_BASE_: {CLIP}\n{new}")
    again = load_config(
        write(tmp_path / "again.yaml", "_BASE_: base.yaml\nSOLVER:\n  BACKBONE_LR: 0.3\n")
    )
    assert rate(again) == 0.3


def test_sizes_of_the_text_encoder_are_those_of_textual(tmp_path):
    text = "MODEL:\n  TEXT_ENCODER:\n    NUM_LAYERS: 2\n    DROPOUT: 0\n    NORM_FIRST: True\n"
    textual = load_config(write(tmp_path / "own.yaml", f"_BASE_: {LOCTEX}\n{text}")).MODEL.TEXTUAL
    assert (textual.NUM_LAYERS, textual.NORM_FIRST, textual.HIDDEN_SIZE) == (2, True, 1024)
    assert textual.DROPOUT == 0 and isinstance(textual.DROPOUT, float)


@pytest.mark.parametrize("config", [BASE, SCENES])
def test_a_model_without_a_text_encoder_keeps_its_own_sizes(config):
    assert load_config(config, {"MODEL.TEXT_ENCODER.HIDDEN_SIZE": 64}) == load_config(config)


def test_a_detectors_whole_config_of_an_earlier_version_is_read_without_a_warning(tmp_path, caplog):
    clip = load_config(CLIP)
    file = write(tmp_path / "config.yaml", earlier_config(clip, multiplier=0.1))
    with caplog.at_level(logging.WARNING, "virtex_det.config"):
        assert plain_leaves(load_config(file)) == plain_leaves(clip)
    assert not caplog.records


@pytest.mark.parametrize(("config", "layers"), [(BASE, 1), (LOCTEX, 3)])
def test_a_pretraining_runs_whole_config_of_an_earlier_version_is_what_it_trained(
    config, layers, tmp_path
):
    now = load_config(config)
    file = write(tmp_path / "config.yaml", earlier_config(now, rate=0.2, bf16=True, NUM_LAYERS=3))
    then = load_config(file)
    assert (then.MODEL.TEXTUAL.NUM_LAYERS, then.SOLVER.BACKBONE_MULTIPLIER) == (layers, 200)
    assert then.SOLVER.AMP == BFLOAT16
    changed = override(now, {"MODEL.TEXTUAL.NUM_LAYERS": layers, "SOLVER.AMP.DTYPE": "bfloat16"})
    assert plain_leaves(then) == plain_leaves(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"MODEL.BF16": True}, {"SOLVER.AMP.DTYPE": "float16"}),
        ({"MODEL.BF16": True}, {"SOLVER.AMP.ENABLED": False}),
        ({"MODEL.BF16": False}, {"SOLVER.AMP.ENABLED": "True", "SOLVER.AMP.DTYPE": "bfloat16"}),
        ({"SOLVER.BACKBONE_LR": "0.2"}, {"SOLVER.BACKBONE_MULTIPLIER": 100}),
        ({"SOLVER.BACKBONE_LR": 0.2}, {"SOLVER.BASE_LR": 0.01, "SOLVER.BACKBONE_MULTIPLIER": 10.0}),
        ({"MODEL.TEXT_ENCODER.HIDDEN_SIZE": "64"}, {"MODEL.TEXTUAL.HIDDEN_SIZE": 128}),
    ],
)
def test_an_old_and_a_new_name_of_different_values_are_refused(old, new, tmp_path):
    [name], last = old, [*new][-1]
    with pytest.raises(UserError, match=rf"(?s)^{name} .*{last}.*Leave {name} out"):
        load_config(LOCTEX, old | new)
    content = {}
    for key, value in (old | new).items():
        node = content
        *sections, leaf = key.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    with pytest.raises(UserError, match=rf"{name} .*own\.yaml sets both"):
        load_config(write(tmp_path / "own.yaml", yaml.safe_dump(content)))


@pytest.mark.parametrize(
    "both",
    [
        {"MODEL.BF16": True, "SOLVER.AMP.ENABLED": True},
        {"MODEL.BF16": "True", "SOLVER.AMP.ENABLED": "True", "SOLVER.AMP.DTYPE": "bfloat16"},
        {"SOLVER.BACKBONE_LR": 0.2, "SOLVER.BASE_LR": "0.001", "SOLVER.BACKBONE_MULTIPLIER": 200},
        {"MODEL.TEXT_ENCODER.HIDDEN_SIZE": 64, "MODEL.TEXTUAL.HIDDEN_SIZE": "64"},
    ],
)
def test_an_old_and_a_new_name_of_one_value_go_together(both):
    load_config(LOCTEX, both)


def test_bf16_false_beside_float16_is_no_contradiction():
    cfg = load_config(SCENES, {"MODEL.BF16": False, "SOLVER.AMP.ENABLED": True})
    assert cfg.SOLVER.AMP == {"ENABLED": True, "DTYPE": "float16"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"MODEL.BF16": "yes"}, "MODEL.BF16 is 'yes', but must be True or False"),
        ({"SOLVER.BACKBONE_LR": -1}, "SOLVER.BACKBONE_LR is -1, but must be a number from 0"),
        ({"SOLVER.BACKBONE_LR": "x"}, "SOLVER.BACKBONE_LR is 'x', but must be a number from 0"),
        (
            {"SOLVER.BACKBONE_LR": 0.1, "SOLVER.BASE_LR": 0},
            "(?s)a multiple of SOLVER.BASE_LR, which is 0",
        ),
        ({"MODEL.TEXT_ENCODER.HIDDEN_SIZE": "wide"}, "MODEL.TEXTUAL.HIDDEN_SIZE is 'wide'"),
        ({"MODEL.BF61": True}, "There is no config key MODEL.BF61"),
    ],
)
def test_a_value_that_cannot_be_converted_is_an_error(overrides, message):
    with pytest.raises(UserError, match=message) as raised:
        load_config(LOCTEX, overrides)
    assert "The nearest: MODEL.BF16" not in str(raised.value)


def test_the_new_name_is_logged_once(caplog):
    with caplog.at_level(logging.WARNING, "virtex_det.config.renames"):
        for _ in range(2):
            load_config(BASE, {"SOLVER.BACKBONE_LR": 0.0421})
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "SOLVER.BACKBONE_LR is an old name of SOLVER.BACKBONE_MULTIPLIER. Read as: "
    )


def test_detectron2s_own_merging_refuses_an_old_name_with_the_new_one():
    with pytest.raises(
        KeyError, match="MODEL.BF16 was renamed to SOLVER.AMP.ENABLED.*SOLVER.AMP.DTYPE"
    ):
        get_cfg().merge_from_list(["MODEL.BF16", True])


def test_an_old_name_set_on_a_config_in_python_is_refused_before_training():
    cfg = load_config(SCENES).clone()
    cfg.defrost()
    cfg.MODEL.BF16 = True
    with pytest.raises(
        UserError, match="MODEL.BF16 is an old name.*SOLVER.AMP.ENABLED and SOLVER.AMP.DTYPE"
    ):
        check_config(cfg)
    assert override(cfg, {}).SOLVER.AMP == BFLOAT16
