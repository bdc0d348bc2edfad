import base64
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from virtex_det.engine import Trainer
from virtex_det.errors import UserError
from virtex_det.inference import pages
from virtex_det.inference.captioning import (
    Captioned,
    Captioner,
    Captions,
    find_images,
    run_config,
    split_overrides,
    write_captions,
)


def picture(path, size=(40, 30), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


@pytest.fixture
def run(pretraining_cfg, vocabulary, tmp_path):
    """A run folder with no more than what makes it whole."""
    cfg = pretraining_cfg("INPUT.CAPTION.TOKENIZER", "/gone/vocabulary.model")
    folder = tmp_path / "moved_run"
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    shutil.copy(vocabulary, folder / "vocabulary.model")
    torch.manual_seed(0)
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, folder / "model_final.pth")
    return folder


def test_folders_give_all_images_below_them_and_each_image_comes_once(photos):
    found = find_images([str(photos / "b.jpg"), str(photos)])
    assert [path.name for path in found] == ["b.jpg", "a.PNG", "c.webp"]


def test_a_pattern_that_the_shell_left_is_resolved(photos):
    assert [path.name for path in find_images([f"{photos}/*.jpg"])] == ["b.jpg"]
    assert [path.name for path in find_images([f"{photos}/**/*.webp"])] == ["c.webp"]


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file(photos):
    path = picture(photos / "odd" / "[a].jpg")
    assert find_images([str(path)]) == [path]


def test_a_file_that_is_named_is_tried_whatever_it_is(photos):
    assert find_images([str(photos / "notes.txt")]) == [photos / "notes.txt"]


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "only.txt").write_text("text")
    with pytest.raises(UserError, match=r"holds no image.*\.jpg"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize("name", ["nowhere.jpg", "*.jpg"])
def test_a_name_of_nothing_is_an_error(name, tmp_path):
    with pytest.raises(UserError, match="no image, folder or pattern"):
        find_images([str(tmp_path / name)])


def test_overrides_begin_at_the_first_config_key_that_is_no_file(photos, monkeypatch):
    monkeypatch.chdir(photos)
    picture(photos / "MODEL.jpg")
    images = ["b.jpg", "MODEL.jpg"]
    overrides = ["MODEL.WEIGHTS", "a.pth", "SEED", "3"]
    assert split_overrides([*images, *overrides]) == (images, overrides)
    assert split_overrides(images) == (images, [])


def test_a_run_folder_is_whole_wherever_it_lies(run, photos):
    captions = Captioner(run_config(run)).caption(find_images([str(photos)]), batch_size=2)
    assert [image.file_name for image in captions.captioned] == [str(path) for path in find_images([str(photos)])]
    assert all(image.log_probability < 0 for image in captions.captioned) and captions.skipped == []


def test_the_last_checkpoint_comes_before_the_final_one_and_overrides_come_last(run):
    shutil.copy(run / "model_final.pth", run / "model_0000001.pth")
    (run / "last_checkpoint").write_text("model_0000001.pth")
    assert run_config(run).MODEL.WEIGHTS == str(run / "model_0000001.pth")
    cfg = run_config(run, ["MODEL.WEIGHTS", "other.pth", "MODEL.TEXTUAL.DECODING.BEAM_SIZE", "2"])
    assert cfg.MODEL.WEIGHTS == "other.pth" and cfg.MODEL.TEXTUAL.DECODING.BEAM_SIZE == 2


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no run folder: it has no config.yaml"):
        run_config(tmp_path)


def test_a_caption_does_not_depend_on_the_batch(run, scenes):
    captioner = Captioner(run_config(run))
    images = find_images([str(scenes / "val")])
    assert len(images) == 4
    alone, together = (captioner.caption(images, batch_size).captioned for batch_size in (1, 4))
    assert [image.caption for image in alone] == [image.caption for image in together]
    probabilities = [image.log_probability for image in together]
    assert [image.log_probability for image in alone] == pytest.approx(probabilities, rel=1e-4)


def test_nucleus_sampling_writes_captions_too(run, photos):
    cfg = run_config(run, ["MODEL.TEXTUAL.DECODING.METHOD", "nucleus_sampling"])
    captioner = Captioner(cfg)
    assert len(captioner.caption(find_images([str(photos)])).captioned) == 3
    assert captioner.describe()["Decoding"].startswith("nucleus sampling, 0.9")


def test_broken_files_are_listed_and_skipped(run, photos):
    whole = (photos / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").touch()
    captions = Captioner(run_config(run)).caption([*find_images([str(photos)]), photos / "notes.txt"], batch_size=2)
    assert len(captions.captioned) == 3
    assert [reason.split(": ")[0] for reason in captions.skipped] == [
        str(photos / name) for name in ("cut.jpg", "empty.png", "notes.txt")
    ]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_images_of_any_mode_are_captioned_and_shown(mode, run, tmp_path):
    path = picture(tmp_path / "image.tiff", mode=mode)
    image = Captioner(run_config(run)).caption([path]).captioned[0]
    assert shown(image.thumbnail).mode == "RGB"


def test_files_that_are_no_image_are_skipped_with_the_reason_and_never_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    picture(tmp_path / "floats.tif", mode="F")
    picture(tmp_path / "deep.png", mode="I;16")
    paths = [tmp_path / name for name in ("pipe.jpg", "floats.tif", "deep.png")]
    captions = Captioner(run_config(run)).caption(paths)
    assert [Path(image.file_name).name for image in captions.captioned] == ["deep.png"]
    assert "named pipe" in captions.skipped[0] and "INPUT.MAX_VALUE" in captions.skipped[1]
    assert len(Captioner(run_config(run, ["INPUT.MAX_VALUE", "1"])).caption(paths).captioned) == 2


def shown(thumbnail: str) -> Image.Image:
    kind, _, content = thumbnail.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_thumbnail_is_small_and_upright(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    path = picture(tmp_path / "large.jpg", size=(1600, 800), exif=exif)
    assert shown(Captioner(run_config(run)).caption([path]).captioned[0].thumbnail).size == (160, 320)


def test_a_file_name_that_is_no_text_is_printed_all_the_same(run, tmp_path):
    path = tmp_path / b"caf\xe9.jpg".decode(errors="surrogateescape")
    try:
        picture(tmp_path / "image.jpg").rename(path)
    except OSError:
        pytest.skip("this file system has names of text only")
    captions = Captioner(run_config(run)).caption(find_images([str(tmp_path / "*.jpg")]))
    assert captions.captioned[0].file_name.endswith("caf\ufffd.jpg")
    write_captions(tmp_path, captions, {})


def test_no_weights_is_an_error(pretraining_cfg):
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        Captioner(pretraining_cfg())


def test_a_model_that_writes_nothing_is_an_error(run, photos):
    captioner = Captioner(run_config(run, ["MODEL.TEXTUAL.DECODING.METHOD", "none"]))
    with pytest.raises(UserError, match="BicaptioningModel with .*'none' writes no captions"):
        captioner.caption(find_images([str(photos)]))


def test_the_page_holds_pictures_captions_reasons_and_facts_as_text(tmp_path):
    captions = Captions([Captioned("<a>.jpg", "a <b> & c", -2.5, "data:image/jpeg;base64,AA==")], ["x.png: <broken>"])
    page = write_captions(tmp_path / "new" / "folder", captions, {"Model": "CaptioningModel"})
    html = page.read_text()
    for part in ("data:image/jpeg;base64,AA==", "a &lt;b&gt; &amp; c", "-2.50", "x.png: &lt;broken&gt;"):
        assert part in html
    assert "<dd>CaptioningModel</dd>" in html and "http" not in html
    assert json.loads((page.parent / "captions.json").read_text()) == [
        {"file_name": "<a>.jpg", "caption": "a <b> & c", "log_probability": -2.5}
    ]


def test_a_page_that_cannot_be_made_leaves_the_one_before(tmp_path, monkeypatch):
    page = write_captions(tmp_path, Captions([], []), {})
    before = page.read_text()
    monkeypatch.setattr(pages, "describe_hardware", lambda: {})
    with pytest.raises(KeyError):
        write_captions(tmp_path, Captions([Captioned("a.jpg", "a", -1.0, "")], []), {})
    assert page.read_text() == before and sorted(path.name for path in tmp_path.iterdir()) == [
        "captions.html",
        "captions.json",
    ]


def test_hidden_files_and_circles_of_links_are_no_images_to_caption(tmp_path):
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/a.png", "._a.png", "b/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/circle").symlink_to(tmp_path)
    assert find_images([str(tmp_path)]) == [tmp_path / "b/a.png"]
