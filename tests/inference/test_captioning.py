import base64
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.inference.conftest import ZOO_NAME
from virtex_det.data.pictures import find_images
from virtex_det.errors import UserError
from virtex_det.inference import pages
from virtex_det.inference.captioning import (
    Caption,
    Captioner,
    Captions,
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
def run(captioner_run):
    """A run folder with only the files that it needs."""
    return captioner_run


def test_a_run_folder_is_whole_wherever_it_lies(run, photos):
    captions = Captioner(run).caption(find_images([str(photos)]), batch_size=2)
    assert [image.file_name for image in captions.captioned] == [
        str(path) for path in find_images([str(photos)])
    ]
    assert all(image.log_probability < 0 for image in captions.captioned) and captions.skipped == []


def test_a_caption_does_not_depend_on_the_batch(run, scenes):
    captioner = Captioner(run)
    images = find_images([str(scenes / "val")])
    assert len(images) == 4
    alone, together = (captioner.caption(images, batch_size).captioned for batch_size in (1, 4))
    assert [image.text for image in alone] == [image.text for image in together]
    probabilities = [image.log_probability for image in together]
    assert [image.log_probability for image in alone] == pytest.approx(probabilities, rel=1e-4)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_a_batch_without_pictures_is_refused(captioner_run, photos, batch_size):
    with pytest.raises(UserError, match="batch_size is .*; expected a whole number from 1 to"):
        Captioner(captioner_run).caption(photos, batch_size)


def test_nucleus_sampling_writes_captions_too(run, photos):
    captioner = Captioner(run, overrides={"MODEL.TEXTUAL.DECODING.METHOD": "nucleus_sampling"})
    assert len(captioner.caption(find_images([str(photos)])).captioned) == 3
    assert captioner.describe()["Decoding"].startswith("nucleus sampling, 0.9")


def test_broken_files_are_listed_and_skipped(run, photos):
    whole = (photos / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").touch()
    captions = Captioner(run).caption(
        [*find_images([str(photos)]), photos / "notes.txt"], batch_size=2
    )
    assert len(captions.captioned) == 3
    assert [reason.split(": ")[0] for reason in captions.skipped] == [
        str(photos / name) for name in ("cut.jpg", "empty.png", "notes.txt")
    ]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_images_of_any_mode_are_captioned_and_shown(mode, run, tmp_path):
    path = picture(tmp_path / "image.tiff", mode=mode)
    image = Captioner(run).caption([path]).captioned[0]
    assert shown(image.thumbnail).mode == "RGB"


def test_files_that_are_not_images_are_skipped_with_the_reason_and_never_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    picture(tmp_path / "floats.tif", mode="F")
    picture(tmp_path / "deep.png", mode="I;16")
    paths = [tmp_path / name for name in ("pipe.jpg", "floats.tif", "deep.png")]
    captions = Captioner(run).caption(paths)
    assert [Path(image.file_name).name for image in captions.captioned] == ["deep.png"]
    assert "named pipe" in captions.skipped[0] and "INPUT.MAX_VALUE" in captions.skipped[1]
    assert len(Captioner(run, overrides={"INPUT.MAX_VALUE": "1"}).caption(paths).captioned) == 2


def shown(thumbnail: str) -> Image.Image:
    kind, _, content = thumbnail.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_thumbnail_is_small_and_upright(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    path = picture(tmp_path / "large.jpg", size=(1600, 800), exif=exif)
    assert shown(Captioner(run).caption([path]).captioned[0].thumbnail).size == (160, 320)


def test_a_file_name_that_is_not_utf_8_is_printed(run, tmp_path):
    path = tmp_path / b"caf\xe9.jpg".decode(errors="surrogateescape")
    try:
        picture(tmp_path / "image.jpg").rename(path)
    except OSError:
        pytest.skip("this file system has names of text only")
    captions = Captioner(run).caption(find_images([str(tmp_path / "*.jpg")]))
    assert captions.captioned[0].file_name.endswith("caf\ufffd.jpg")
    write_captions(tmp_path, captions, {})


def test_no_weights_is_an_error(pretraining_cfg):
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        Captioner(pretraining_cfg())


def test_a_model_that_writes_nothing_is_an_error(run):
    with pytest.raises(UserError, match="BicaptioningModel with .*'none' writes no captions"):
        Captioner(run, overrides={"MODEL.TEXTUAL.DECODING.METHOD": "none"})


def test_the_page_holds_pictures_captions_reasons_and_facts_as_text(tmp_path):
    captions = Captions(
        [Caption("<a>.jpg", "a <b> & c", -2.5, "data:image/jpeg;base64,AA==")], ["x.png: <broken>"]
    )
    page = write_captions(tmp_path / "new" / "folder", captions, {"Model": "CaptioningModel"})
    html = page.read_text()
    for part in (
        "data:image/jpeg;base64,AA==",
        "a &lt;b&gt; &amp; c",
        "-2.50",
        "x.png: &lt;broken&gt;",
    ):
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
        write_captions(tmp_path, Captions([Caption("a.jpg", "a", -1.0, "")], []), {})
    assert page.read_text() == before and sorted(path.name for path in tmp_path.iterdir()) == [
        "captions.html",
        "captions.json",
    ]


# --- in Python


def test_single_pictures_lists_and_folders_have_the_captions_of_the_page(run, photos):
    captioner = Captioner(run)
    page = captioner.caption(find_images([str(photos)])).captioned
    for found in (captioner(photos), captioner(find_images([str(photos)]))):
        assert [caption.text for caption in found] == [caption.text for caption in page]
    one = captioner(photos / "b.jpg")
    assert (
        isinstance(one, Caption) and str(one) == one.text and one.file_name == str(photos / "b.jpg")
    )
    assert one.log_probability == pytest.approx(
        captioner(Image.open(photos / "b.jpg")).log_probability, abs=1e-4
    )
    assert not one.thumbnail and page[0].thumbnail


def test_a_broken_file_in_a_list_is_named_or_left_out(run, photos, caplog):
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    captioner = Captioner(run)
    with pytest.raises(UserError, match=r"(?s)1 of 4 pictures cannot be used.*cut\.jpg"):
        captioner(photos)
    assert len(captioner(photos, skip_broken=True)) == 3 and "cut.jpg" in caplog.text
    stream = captioner.stream([photos / "cut.jpg"])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        next(stream)


def test_published_weights_caption_with_the_vocabulary_that_is_named(tiny_zoo, vocabulary, photos):
    name = f"virtex://{ZOO_NAME}"
    captioner = Captioner(name, overrides={"INPUT.CAPTION.TOKENIZER": vocabulary})
    assert captioner.report.path == name and not captioner.report.missing
    assert repr(captioner) == f"Captioner(BicaptioningModel, {name}, on cpu)"
    assert isinstance(captioner(photos / "b.jpg").text, str)


def test_published_weights_without_a_vocabulary_are_not_fetched(tiny_zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match="Tokenizer file not found: 'datasets/vocab/coco_10k.model'"
    ):
        Captioner(f"virtex://{ZOO_NAME}")
    assert not (tmp_path / "cache").exists()
