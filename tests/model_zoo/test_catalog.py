import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from virtex_det import model_zoo
from virtex_det.checkpoint import FORMATS
from virtex_det.config import get_cfg
from virtex_det.errors import UserError
from virtex_det.model_zoo import page
from virtex_det.model_zoo.catalog import (
    CATALOG,
    VARIABLE,
    catalog,
    find,
    list_models,
    read_catalog,
)

CLIP_NETWORKS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")

VIRTEX_CONFIGS = {
    "task_ablations": (
        "bicaptioning_R_50_L1_H2048",
        "captioning_R_50_L1_H2048",
        "token_classification_R_50",
        "multilabel_classification_R_50",
        "masked_lm_R_50_L1_H2048",
    ),
    "width_ablations": tuple(f"bicaptioning_R_50_L1_H{width}" for width in (512, 768, 1024, 2048)),
    "depth_ablations": tuple(f"bicaptioning_R_50_L{depth}_H1024" for depth in (1, 2, 3, 4)),
    "backbone_ablations": tuple(f"bicaptioning_R_{net}_L1_H1024" for net in ("50", "50W2X", "101")),
}


@pytest.fixture
def entry() -> dict:
    return dataclasses.asdict(catalog()[0])


@pytest.fixture
def broken(tmp_path):
    def read(*entries):
        path = tmp_path / "catalog.yaml"
        path.write_text(yaml.safe_dump({"weights": list(entries)}))
        return read_catalog(path)

    return read


def test_virtex_has_thirteen_files_under_sixteen_config_names():
    paths = [f"{folder}/{name}" for folder, names in VIRTEX_CONFIGS.items() for name in names]
    assert len(paths) == 16
    assert len({find(path).name for path in paths}) == 13
    assert (
        find("width_ablations/bicaptioning_R_50_L1_H2048.yaml").name == "bicaptioning_R_50_L1_H2048"
    )


def test_no_two_records_have_the_same_address():
    addresses = Counter(url for record in catalog() for url in record.urls)
    assert addresses.most_common(1)[0][1] == 1


def test_only_tested_records_are_marked_as_tested():
    assert not any(record.tested for record in catalog())


def test_a_hash_in_an_address_is_the_hash_of_the_record():
    stated = {
        record.name: re.search(r"/([0-9a-f]{64})/", record.urls[0])
        for record in catalog()
        if record.urls
    }
    assert {name: found[1] for name, found in stated.items() if found} == {
        f"clip_{net}": find(f"clip_{net}").sha256 for net in CLIP_NETWORKS
    }


def test_network_keys_are_config_keys_with_values_of_their_type():
    for record in catalog():
        cfg = get_cfg()
        for key, value in record.network.items():
            cfg.merge_from_list([key, value])


def test_every_format_is_a_known_family():
    known = {name for entry in FORMATS for name in (entry.name, *entry.also)}
    assert {record.format for record in catalog()} <= known


def test_names_are_found_by_network_format_and_data():
    assert "clip_RN50x4" in list_models("RN50X4")
    assert set(list_models("openai_clip")) == {f"clip_{net}" for net in CLIP_NETWORKS}
    assert list_models("no such thing") == []
    assert len(list_models()) == len(catalog())


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="Nearest names: .*bicaptioning_R_50_L1_H2048"):
        find("bicaptioning_R50_L1_H2048")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "not hexadecimal"),
        ("sha256", 12345678),
        ("size", -1),
        ("size", True),
        ("urls", "https://example.org/one.pth"),
        ("urls", ["ftp://example.org/one.pth"]),
        ("name", "with/slash"),
        ("config", "no config"),
        ("network", {"no key": 1}),
        ("numbers", {"source": {"AP": "high"}}),
        ("tested", "yes"),
        ("licence", 2),
        ("paper", ""),
    ],
)
def test_the_error_for_an_invalid_value_names_record_and_field(broken, entry, field, value):
    with pytest.raises(UserError, match=rf"record 1 \(.*\), field {field}: expected") as caught:
        broken(entry | {field: value})
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_field_is_named(broken, entry):
    del entry["format"]
    with pytest.raises(UserError, match=r"record 1 \(bicaptioning.*field format: missing"):
        broken(entry)


def test_an_unknown_field_is_named_with_the_nearest(broken, entry):
    with pytest.raises(UserError, match="field license: .* licence"):
        broken(entry | {"license": "MIT"})


def test_a_name_given_twice_is_an_error(broken, entry):
    with pytest.raises(UserError, match="record 2 .*field name: an earlier record has the name"):
        broken(entry, entry)


def test_an_alias_that_is_a_name_is_an_error(broken, entry):
    other = entry | {"name": "other", "aliases": [entry["name"]]}
    with pytest.raises(UserError, match="record 2 .other., field aliases"):
        broken(entry, other)


@pytest.mark.parametrize(
    "text", ["weights: [", "weights: !!python/object/apply:os.getcwd []", "[]", "weights: 3"]
)
def test_a_file_that_is_not_a_catalogue_is_an_error(tmp_path, text):
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="catalogue"):
        read_catalog(path)


@pytest.fixture
def own(tmp_path, monkeypatch, entry):
    """Write catalogues of the user, each of one entry, and name them in VIRTEX_DET_CATALOG."""

    def write(**fields):
        paths = []
        for name, changes in fields.items():
            paths.append(tmp_path / f"{name}.yaml")
            changed = entry | {"name": name, "aliases": []} | changes
            paths[-1].write_text(yaml.safe_dump({"weights": [changed]}))
        monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, paths)))
        return paths

    return write


def test_own_files_and_folders_add_records(own, tmp_path, monkeypatch):
    first, second = own(first={}, second={"aliases": ["ours"]})
    assert list_models()[-2:] == ["first", "second"]
    assert find("ours").name == "second"
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert list_models()[-2:] == ["first", "second"]
    first.unlink()
    assert "first" not in list_models()


def test_an_own_file_is_read_again_after_a_change(own):
    own(ours={})
    assert find("ours").architecture == "R-50"
    (path,) = own(ours={"architecture": "R-18"})
    os.utime(path, ns=(1, 1))
    assert find("ours").architecture == "R-18"


def test_the_catalogue_of_the_page_is_read_from_its_folder_with_its_config_below(
    tmp_path, monkeypatch
):
    page = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text()
    (tmp_path / "ours.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    config = tmp_path / "configs" / "segm_ours.yaml"
    config.parent.mkdir()
    config.write_text("_BASE_: detectron2/coco_segm_default_init_2x.yaml\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert find("ours_R_50").config == str(config)


def test_a_config_among_the_catalogues_of_a_folder_is_sent_to_a_subfolder(
    own, tmp_path, monkeypatch
):
    own(ours={})
    (tmp_path / "segm_ours.yaml").write_text("SEED: 7\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=r"segm_ours\.yaml has no list of records .*\n.*subfolder"):
        list_models()


def test_the_config_of_an_own_record_is_a_file_beside_its_catalogue(own, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/ours.yaml").write_text("_BASE_: detectron2/scenes_segm.yaml\nSEED: 7\n")
    own(ours={"config": "configs/ours.yaml", "network": {"MODEL.RESNETS.DEPTH": 101}})
    cfg = model_zoo.get_config("ours")
    assert (cfg.SEED, cfg.MODEL.RESNETS.DEPTH) == (7, 101)


def test_a_config_that_is_nowhere_is_named_with_its_line(own):
    (path,) = own(ours={"config": "nowhere.yaml"})
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "nowhere" in text)
    with pytest.raises(UserError, match=rf"ours.yaml, line {line}, .* field config: .*nowhere"):
        find("ours")


@pytest.mark.parametrize("changes", [{"name": "clip_RN50"}, {"aliases": ["clip_RN50"]}])
def test_a_record_that_hides_a_name_of_ours_is_refused_with_both_files(own, changes):
    (path,) = own(ours=changes)
    with pytest.raises(UserError, match=f"{path}: .* would hide the name clip_RN50 of {CATALOG}"):
        find("clip_RN50")


def test_two_own_files_with_one_name_are_refused(own):
    first, second = own(first={"aliases": ["ours"]}, second={"aliases": ["ours"]})
    with pytest.raises(UserError, match=f"{second}: .* the name ours of {first}"):
        list_models()


def test_an_invalid_field_is_named_with_its_line(own):
    (path,) = own(ours={"size": -1})
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "size" in text)
    with pytest.raises(UserError, match=rf"{path}, line {line}, record 1 \(ours\), field size"):
        list_models()


def test_a_variable_that_names_nothing_is_refused(tmp_path, monkeypatch):
    for name, message in [(tmp_path, "folder without YAML"), (tmp_path / "x", "does not exist")]:
        monkeypatch.setenv(VARIABLE, str(name))
        with pytest.raises(UserError, match=f"{VARIABLE} names .*{message}"):
            find("clip_RN50")


def test_the_page_of_the_package_has_no_own_records(own):
    own(my_own_weights={})
    assert "my_own_weights" not in page.render()
