import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets import check_datasets, load_dataset
from virtex_det.errors import UserError


@pytest.fixture(autouse=True)
def forget_datasets():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def captions(tmp_path):
    (tmp_path / "images").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a dog"}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    return f"captions:{tmp_path}/captions.json:{tmp_path}/images"


def test_a_captions_file_is_registered_under_its_name_at_first_use(captions, tmp_path):
    (entry,) = load_dataset(captions)
    assert entry["file_name"] == f"{tmp_path}/images/1.jpg" and entry["captions"] == ["a dog"]
    assert captions in DatasetCatalog.list() and MetadataCatalog.get(captions).evaluator_type == (
        "captions"
    )
    assert load_dataset(captions) == [entry]


@pytest.mark.parametrize("lines", [False, True], ids=["folder", "jsonl"])
def test_pairs_are_registered_under_their_name(lines, tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "p.jsonl").write_text('{"image": "a.jpg", "caption": "a dog"}')
    name = f"pairs:{tmp_path}/p.jsonl" if lines else f"pairs:{tmp_path}"
    (entry,) = load_dataset(name)
    assert entry == {"file_name": f"{tmp_path}/a.jpg", "image_id": "a.jpg", "captions": ["a dog"]}
    assert MetadataCatalog.get(name).evaluator_type == "captions"


def test_shards_are_registered_under_their_name(tmp_path, write_shard):
    for shard in range(3):
        write_shard(tmp_path / f"{shard}.tar", 2)
    counted, found = f"shards:{tmp_path}/{{0..2}}.tar", f"shards:{tmp_path}/*.tar"
    check_datasets([counted, found])
    assert MetadataCatalog.get(counted).shards == MetadataCatalog.get(found).shards
    assert len(load_dataset(counted)) == 6


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.txt").write_text("a dog")
    assert load_dataset("pairs:~")


@pytest.mark.parametrize("name", ["pair:/data", "Pairs:/data", "paris:/data"])
def test_a_kind_that_is_not_known_is_answered_with_the_nearest(name):
    with pytest.raises(
        UserError, match=f"'{name}'\nDid you mean:\n  pairs:FOLDER\n  pairs:FILE.jsonl"
    ):
        check_datasets([name])


def test_a_kind_that_is_like_none_is_answered_with_all():
    with pytest.raises(UserError, match="(?s)captions:FILE.*pairs:FOLDER.*shards:PATTERN"):
        check_datasets(["zzz:/data"])


@pytest.mark.parametrize("name", ["captions:/data/captions.json", "captions:/data/captions.json:"])
def test_captions_without_a_folder_of_images_show_the_form(name):
    with pytest.raises(UserError, match="captions:FILE.json:IMAGE_FOLDER"):
        check_datasets([name])


def test_a_missing_file_is_named_with_the_nearest_beside_it(captions, tmp_path):
    wrong = captions.replace("captions.json", "caption.json")
    with pytest.raises(UserError) as error:
        check_datasets([wrong])
    assert f"caption.json in {tmp_path}; did you mean captions.json?" in str(error.value)
    assert "DETECTRON2_DATASETS" not in str(error.value)


def test_missing_folders_and_shards_are_named_a_few(tmp_path):
    with pytest.raises(UserError, match="nothing in "):
        check_datasets([f"pairs:{tmp_path}/nothing"])
    with pytest.raises(UserError, match="(?s)0.tar in .*4.tar in .*and 95 more"):
        check_datasets([f"shards:{tmp_path}/{{0..99}}.tar"])
    with pytest.raises(UserError, match=r"No file matches .*\*\.tar"):
        check_datasets([f"shards:{tmp_path}/*.tar"])
