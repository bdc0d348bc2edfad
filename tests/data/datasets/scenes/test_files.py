import hashlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from virtex_det.data.datasets.scenes import SHAPES, draw_scene, files, generate_scenes
from virtex_det.data.datasets.scenes.drawing import COLORS
from virtex_det.errors import UserError

# The sha256 of the files of instances of SMALL, written by version 3 of the generator.
INSTANCES = {
    "train": "2c295c52effcd51869f10fcbee1551db13b1383ae4e8b928d7dbb77ba0043154",
    "val": "82a59be7ed3b05c50a31328d0554f1cefc30b84c63c776f27435e19f778716db",
}
SMALL = {"num_train": 4, "num_val": 3, "num_unlabelled": 5, "image_size": 64, "num_workers": 0}


def _contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", **SMALL)


def _annotations(root, kind, split):
    return json.loads((root / "annotations" / f"{kind}_{split}.json").read_text())


def test_folders_hold_as_many_images_as_asked_for(root):
    counts = {
        split: len(list((root / split).glob("*.png"))) for split in ("train", "val", "unlabelled")
    }
    assert counts == {"train": 4, "val": 3, "unlabelled": 5}


def test_images_on_disk_are_the_drawn_ones(root):
    image = cv2.imread(str(root / "val" / "000002.png"))[:, :, ::-1]
    assert np.array_equal(image, draw_scene(0, "val", 2, image_size=64).image)


def test_masks_boxes_and_areas_on_disk_are_exact(root):
    coco = COCO(str(root / "annotations" / "instances_train.json"))
    for index, image_id in enumerate(sorted(coco.imgs)):
        scene = draw_scene(0, "train", index, image_size=64)
        annotations = coco.imgToAnns[image_id]
        assert [SHAPES[a["category_id"] - 1] for a in annotations] == [
            i.shape for i in scene.instances
        ]
        for annotation, mask in zip(annotations, scene.masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert coco_mask.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0


def test_captions_on_disk_are_the_drawn_ones(root):
    content = _annotations(root, "captions", "unlabelled")
    image_id = content["images"][3]["id"]
    captions = tuple(a["caption"] for a in content["annotations"] if a["image_id"] == image_id)
    assert captions == draw_scene(0, "unlabelled", 3, image_size=64).captions


def test_the_unlabelled_split_has_no_instances(root):
    assert not (root / "annotations" / "instances_unlabelled.json").exists()


def _narratives(root, split):
    return [
        json.loads(line)
        for line in (root / "annotations" / f"narratives_{split}.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("split", files.SPLITS)
def test_every_caption_has_its_narrative_in_order(root, split):
    captions = [
        annotation["caption"] for annotation in _annotations(root, "captions", split)["annotations"]
    ]
    narratives = _narratives(root, split)
    assert [narrative["caption"] for narrative in narratives] == captions
    assert [narrative["image_id"] for narrative in narratives[::5]] == [
        p.stem for p in sorted((root / split).iterdir())
    ]
    assert {narrative["dataset_id"] for narrative in narratives} == {f"scenes_{split}"}


def test_grounding_is_the_annotation_of_what_a_word_names(root):
    annotations = {
        annotation["id"]: annotation
        for annotation in _annotations(root, "instances", "train")["annotations"]
    }
    image_ids = [image["id"] for image in _annotations(root, "captions", "train")["images"]]
    for narrative in _narratives(root, "train"):
        said = [word["utterance"] for word in narrative["timed_caption"]]
        for number in {number for number in narrative["grounding"] if number}:
            words = {
                word for word, of in zip(said, narrative["grounding"], strict=True) if of == number
            }
            named = annotations[number]
            attributes = named["attributes"]
            shape = SHAPES[named["category_id"] - 1]
            assert {"a", shape} <= words
            assert words <= {"a", attributes["size"], attributes["color"], shape}
            assert named["image_id"] == image_ids[int(narrative["image_id"])]
        links = {word for word, of in zip(said, narrative["grounding"], strict=True) if of is None}
        assert not links & {*SHAPES, *COLORS}


def test_files_of_instances_are_those_of_version_3(tmp_path):
    """So that records of detectors on scenes, which name the files by hash, stay comparable."""
    folder = generate_scenes(tmp_path / "scenes", **SMALL, vocabulary="synonyms")
    for split, sha256 in INSTANCES.items():
        content = (folder / "annotations" / f"instances_{split}.json").read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256


def test_scenes_with_synonyms_have_other_captions_and_narratives_alone(root, tmp_path):
    folder = generate_scenes(tmp_path / "scenes", **SMALL, vocabulary="synonyms")
    before, after = _contents(root), _contents(folder)
    changed = {str(path) for path in before if before[path] != after[path]}
    assert before.keys() == after.keys() and changed == {
        files.SETTINGS_FILE,
        *(f"annotations/captions_{split}.json" for split in files.SPLITS),
        *(f"annotations/narratives_{split}.jsonl" for split in files.SPLITS),
    }


def test_narratives_are_short_on_disk(root):
    sizes = [
        len(line)
        for line in (root / "annotations" / "narratives_val.jsonl").read_text().splitlines()
    ]
    assert sum(sizes) / len(sizes) < 6000


def test_scenes_of_an_earlier_version_are_refused_with_what_to_do(tmp_path):
    folder = generate_scenes(tmp_path / "scenes", **SMALL)
    settings = json.loads((folder / files.SETTINGS_FILE).read_text())
    (folder / files.SETTINGS_FILE).write_text(json.dumps({**settings, "generator_version": 3}))
    with pytest.raises(
        UserError, match='(?s)"generator_version": 3.*"generator_version": 5.*--overwrite'
    ):
        generate_scenes(folder, **SMALL)


def test_splits_share_no_image_id_and_no_pixels(root):
    ids = [
        image["id"]
        for split in files.SPLITS
        for image in _annotations(root, "captions", split)["images"]
    ]
    pixels = {path.read_bytes() for path in root.rglob("*.png")}
    assert len(set(ids)) == len(pixels) == 12


def test_annotation_ids_are_unique(root):
    for kind in ("instances", "captions"):
        ids = [annotation["id"] for annotation in _annotations(root, kind, "train")["annotations"]]
        assert len(set(ids)) == len(ids) > 0


def test_several_processes_write_the_same_files_as_one(root, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 2)
    parallel = generate_scenes(tmp_path / "scenes", **{**SMALL, "num_workers": 2})
    assert _contents(parallel) == _contents(root)


def test_what_a_process_sends_goes_through_a_pipe_in_one_piece(tmp_path, monkeypatch):
    # Of a longer message the kernel takes a part; the pool waits for the rest for ever if the
    # process is killed then.
    send = Connection.send_bytes

    def send_one_piece(connection, message, *rest):
        assert len(message) + 4 <= select.PIPE_BUF  # with its length before it
        send(connection, message, *rest)

    monkeypatch.setattr(Connection, "send_bytes", send_one_piece)
    generate_scenes(
        tmp_path / "scenes",
        num_train=50,
        num_val=50,
        num_unlabelled=0,
        image_size=64,
        num_workers=2,
    )


def test_a_process_that_is_killed_ends_the_generation_with_a_message(tmp_path, monkeypatch):
    def draw(seed, split, number, *rest):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw_scene(seed, split, number, *rest)

    monkeypatch.setattr(files, "_CHUNK", 2)
    monkeypatch.setattr(files, "draw_scene", draw)
    with pytest.raises(UserError, match="(?s)was killed.*Nothing was changed"):
        generate_scenes(tmp_path / "scenes", **{**SMALL, "num_workers": 2})
    assert list(tmp_path.iterdir()) == []


def test_more_images_begin_with_the_same_ones(root, tmp_path):
    more = generate_scenes(tmp_path / "scenes", **{**SMALL, "num_val": 6})
    assert (more / "val" / "000002.png").read_bytes() == (root / "val" / "000002.png").read_bytes()


def test_the_folder_is_readable_for_others(root):
    other = root.parent / "plain"
    other.mkdir()
    assert stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_complete_scenes_with_the_same_settings_are_kept(root, monkeypatch):
    monkeypatch.setattr(files, "draw_scene", None)
    before = _contents(root)
    assert generate_scenes(root, **SMALL) == root
    assert _contents(root) == before


@pytest.mark.parametrize(
    "name",
    ["val/000001.png", "annotations/instances_val.json", "annotations/narratives_train.jsonl"],
)
def test_scenes_that_lack_a_file_are_refused_unless_overwritten(name, tmp_path):
    folder = generate_scenes(tmp_path / "scenes", **SMALL)
    before = _contents(folder)
    (folder / name).unlink()
    with pytest.raises(
        UserError, match=f"has these scenes, but {name} is missing.*(?s:.*overwrite)"
    ):
        generate_scenes(folder, **SMALL)
    generate_scenes(folder, **SMALL, overwrite=True)
    assert _contents(folder) == before


def test_scenes_with_other_settings_are_refused_unless_overwritten(tmp_path):
    folder = generate_scenes(tmp_path / "scenes", **SMALL)
    before = _contents(folder)
    with pytest.raises(UserError, match='(?s)other settings.*"seed": 0.*"seed": 1.*overwrite'):
        generate_scenes(folder, **SMALL, seed=1)
    assert _contents(folder) == before
    generate_scenes(folder, **SMALL, seed=1, overwrite=True)
    assert _contents(folder) != before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_folder_of_other_files_is_never_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="Nothing was changed"):
        generate_scenes(tmp_path, **SMALL, overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def _draw_until(index, error):
    def draw(seed, split, number, *rest):
        if split == "val" and number == index:
            raise error
        return draw_scene(seed, split, number, *rest)

    return draw


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError()], ids=repr)
def test_an_interrupted_generation_leaves_nothing(error, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "draw_scene", _draw_until(1, error))
    with pytest.raises(type(error)):
        generate_scenes(tmp_path / "scenes", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_overwriting_keeps_the_old_scenes(tmp_path, monkeypatch):
    folder = generate_scenes(tmp_path / "scenes", **SMALL)
    before = _contents(folder)
    monkeypatch.setattr(files, "draw_scene", _draw_until(1, OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left on device"):
        generate_scenes(folder, **SMALL, seed=1, overwrite=True)
    assert _contents(folder) == before


def test_a_negative_number_of_images_is_an_error(tmp_path):
    with pytest.raises(UserError, match="number of val images is -1"):
        generate_scenes(tmp_path / "scenes", **{**SMALL, "num_val": -1})


def test_a_split_may_be_empty(tmp_path):
    folder = generate_scenes(tmp_path / "scenes", **{**SMALL, "num_unlabelled": 0})
    assert _annotations(folder, "captions", "unlabelled")["images"] == []


def processes_of(session: int) -> list[str]:
    """Return the living processes of a session."""
    living = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            living.append(path.parent.name)
    return living


@pytest.mark.slow
def test_a_signal_leaves_no_worker_and_no_folder_and_what_a_kill_leaves_goes_with_the_next(
    tmp_path,
):
    program = "import sys; from virtex_det.engine import with_one_screen_errors as run\n"
    program += "from virtex_det.data.datasets.scenes import generate_scenes\n"
    program += "run(lambda: generate_scenes(sys.argv[1], num_train=100_000, num_workers=2))"

    def generate(number):
        words = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "scenes")]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True, text=True)
        while len(processes_of(process.pid)) < 3 or not any(
            tmp_path.glob(".scenes.*/new/train/*.png")
        ):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        error = process.communicate(timeout=600)[1]
        deadline = time.monotonic() + 300
        while processes_of(process.pid):
            assert time.monotonic() < deadline, "workers outlive the generator"
            time.sleep(0.1)
        return process.returncode, error

    assert generate(signal.SIGKILL)[0] == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    code, error = generate(signal.SIGTERM)
    assert (
        code == 143
        and error.endswith("interrupted by SIGTERM; what was saved stays\n")
        and "Traceback" not in error
    )
    assert list(tmp_path.iterdir()) == []
