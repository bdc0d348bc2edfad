import os

import pytest

from virtex_det.config import get_cfg, load_config
from virtex_det.config.files import MAX_BASES, find_config, packaged_config, read_config_file
from virtex_det.errors import UserError

ODD_CONFIGS = {
    "empty": ("", "expected lines of KEY: VALUE, found None"),
    "a list": ("- 1\n", r"expected lines of KEY: VALUE, found \[1\]"),
    "a word": ("MODEL\n", "expected lines of KEY: VALUE, found 'MODEL'"),
    "a number as a key": ("3: x\n", "key 3 is not text"),
    "a number as a key further in": ("MODEL:\n  3: x\n", "key 3 is not text"),
    "base a number": ("_BASE_: 3\n", "_BASE_ is 3; expected the name"),
    "base nothing": ("_BASE_:\n", "_BASE_ is None; expected the name"),
    "base a mapping": ("_BASE_: {a: b.yaml}\n", "_BASE_ is .*; expected the name"),
    "base a list of numbers": ("_BASE_: [1]\n", r"_BASE_ is \[1\]; expected the name"),
    "base a list in a list": ("_BASE_: [[a.yaml]]\n", "_BASE_ is .*; expected the name"),
    "base empty text": ('_BASE_: ""\n', "_BASE_ is ''; expected the name"),
    "base the folder": ("_BASE_: .\n", "is a folder"),
    "base itself": ("_BASE_: config.yaml\n", "_BASE_ leads in a circle"),
    "base itself by another path": (
        "_BASE_: ../{folder}/./config.yaml\n",
        "_BASE_ leads in a circle",
    ),
    "base missing": ("_BASE_: nowhere.yaml\n", "nowhere.yaml does not exist"),
    "base of nobody": ("_BASE_: ~nobody_here/x.yaml\n", "nobody_here/x.yaml does not exist"),
    "base with a zero": ('_BASE_: "a\\0b"\n', "expected the name of a config file"),
    "base a long name": (f"_BASE_: {'x' * 5000}\n", "cannot be read: File name too long"),
    "base a device": ("_BASE_: /dev/zero\n", "is a device"),
    "base over http": (
        "_BASE_: http://localhost:9/a.yaml\n",
        "address 'http://localhost:9/a.yaml'.*local files only",
    ),
    "base over HTTPS": ("_BASE_: HTTPS://localhost:9/a.yaml\n", "local files only"),
    "base of Detectron2's model zoo": ("_BASE_: detectron2://a.yaml\n", "local files only"),
    "base in our model zoo": ("_BASE_: [virtex://a]\n", "local files only"),
    "a version that is not a number": ("VERSION: [2]\n", r"VERSION \[2\]; expected 1 to 2"),
    "a later version": ("VERSION: 99\n", "VERSION 99; expected 1 to 2"),
    "a version below all": ("VERSION: -1000\n", "VERSION -1000; expected 1 to 2"),
    "100,000 minus signs in a text": (
        f"SEED: '{'-' * 100_000}1'\n",
        "config is invalid|plain YAML",
    ),
}


@pytest.mark.parametrize("name", ODD_CONFIGS)
def test_an_invalid_config_file_gives_an_error_of_one_screen(name, tmp_path):
    content, message = ODD_CONFIGS[name]
    (tmp_path / "config.yaml").write_text(content.replace("{folder}", tmp_path.name))
    with pytest.raises(UserError, match=message) as caught:
        load_config(str(tmp_path / "config.yaml"), [])
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("length", [2, 3, 50])
def test_configs_that_name_each_other_in_a_circle_are_named(length, tmp_path):
    for n in range(length):
        (tmp_path / f"{n}.yaml").write_text(f"_BASE_: {(n + 1) % length}.yaml\n")
    with pytest.raises(UserError, match=r"circle: .*0.yaml -> .*1.yaml"):
        read_config_file(tmp_path / "0.yaml")


def test_a_circle_through_a_link_is_found(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\n")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(UserError, match="circle"):
        read_config_file(tmp_path / "a.yaml")


def test_bases_that_double_at_each_level_are_refused(tmp_path):
    for n in range(50):
        (tmp_path / f"{n}.yaml").write_text(f"_BASE_: [{n + 1}.yaml, {n + 1}.yaml]\n")
    (tmp_path / "50.yaml").write_text("SEED: 1\n")
    with pytest.raises(UserError, match=f"more than {MAX_BASES} _BASE_ files"):
        read_config_file(tmp_path / "0.yaml")


def test_a_pipe_or_a_folder_as_a_config_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "config.yaml").write_text("_BASE_: pipe.yaml\n")
    with pytest.raises(UserError, match="is a named pipe, not a regular file"):
        read_config_file(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="is a folder"):
        read_config_file(tmp_path)


def test_bases_are_laid_over_each_other_as_detectron2_does(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.yaml").write_text("MODEL: {A: 1, B: {C: 1}}\nSEED: 1\n")
    (tmp_path / "b.yaml").write_text("MODEL: {B: {D: 2}}\nSEED: 2\n")
    (tmp_path / "c.yaml").write_text("_BASE_: ['~/a.yaml', b.yaml]\nMODEL: {A: 3}\n")
    expected = type(get_cfg()).load_yaml_with_base(str(tmp_path / "c.yaml"))
    assert read_config_file(tmp_path / "c.yaml") == expected
    assert expected == {"MODEL": {"A": 3, "B": {"C": 1, "D": 2}}, "SEED": 2}


def test_a_base_with_a_value_where_the_config_has_keys_is_an_error(tmp_path):
    (tmp_path / "a.yaml").write_text("MODEL: 3\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\nMODEL: {DEVICE: cpu}\n")
    with pytest.raises(UserError, match="MODEL is a section of keys, but the _BASE_ sets it to 3"):
        read_config_file(tmp_path / "b.yaml")


def test_a_config_of_an_earlier_version_is_converted(tmp_path):
    (tmp_path / "old.yaml").write_text(
        "VERSION: 1\nMODEL:\n  RPN:\n    HEAD_NAME: StandardRPNHead\n"
    )
    (tmp_path / "new.yaml").write_text("_BASE_: old.yaml\nSEED: 3\n")
    cfg = load_config(str(tmp_path / "new.yaml"), [])
    assert (cfg.VERSION, cfg.SEED) == (2, 3)


def test_a_config_of_the_package_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "detectron2/coco_segm_default_init_2x.yaml",
        "configs/detectron2/coco_segm_default_init_2x.yaml",
    ):
        assert load_config(name, []).SOLVER.MAX_ITER == 180_000


def test_a_local_file_of_the_same_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "scenes_segm.yaml").write_text("SEED: 7\n")
    (tmp_path / "mine.yaml").write_text("_BASE_: detectron2/scenes_segm.yaml\n")
    assert load_config("detectron2/scenes_segm.yaml", []).SEED == 7
    assert load_config("mine.yaml", []).SEED == 7


def test_a_base_may_be_a_config_of_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "_BASE_: detectron2/scenes_segm.yaml\nSOLVER: {MAX_ITER: 3}\n"
    )
    cfg = load_config(str(tmp_path / "mine.yaml"), [])
    assert (cfg.SOLVER.MAX_ITER, cfg.DATASETS.TRAIN) == (3, ("scenes_train",))


@pytest.mark.parametrize("name", ["../outside.yaml", "detectron2/../../outside.yaml"])
def test_no_name_leads_out_of_the_configs_of_the_package(name, tmp_path, monkeypatch):
    (tmp_path / "package/configs/detectron2").mkdir(parents=True)
    (tmp_path / "package/outside.yaml").touch()
    monkeypatch.setattr("virtex_det.config.files.CONFIGS", tmp_path / "package/configs")
    monkeypatch.chdir(tmp_path)
    assert packaged_config(name).is_file()
    with pytest.raises(UserError, match="no config file"):
        find_config(name)


def test_the_error_for_an_unknown_config_gives_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match=r"no config file detectron2/scene_segm.yaml. The nearest: detectron2/scenes_seg",
    ):
        load_config("detectron2/scene_segm.yaml", [])
    with pytest.raises(UserError, match=f"no config file {'x' * 300}"):
        load_config("x" * 5000, [])
