import json
import os
import re
import shutil
from importlib import util

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.inference.conftest import write_run
from tests.modeling.test_exportable import MODELS
from virtex_det.errors import UserError
from virtex_det.inference import Detector, agreement
from virtex_det.inference import export as exporting
from virtex_det.inference.export import FORMS, METADATA_FILE, Bound, export

needs_onnx = pytest.mark.skipif(
    not all(util.find_spec(package) for package in FORMS["onnx"].packages),
    reason="ONNX needs the extra [export]: pip install 'virtex_det[export]'",
)


def images(*size, batch=1):
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)


def test_torchscript_is_written_with_what_its_user_has_to_know(detector_run, tmp_path):
    done = export(detector_run, tmp_path / "model.ts", "torchscript")
    # three pictures at three sizes, and a batch of two
    assert len(done.comparisons) == 3 * 3 + 2
    assert len({(each.height, each.width) for each in done.comparisons}) == 3
    assert {each.batch for each in done.comparisons} == {1, 2}
    assert all(each.difference.objects > 5 for each in done.comparisons)
    assert [path.name for path in tmp_path.glob("*model*")] == ["model.ts"]  # nothing unfinished

    extra = {METADATA_FILE: ""}
    detect = torch.jit.load(done.file, _extra_files=extra)
    facts = json.loads(extra[METADATA_FILE])
    assert facts == done.metadata
    assert facts["classes"] == list(Detector(detector_run).classes) and facts["detections"] == 20
    assert facts["score_threshold"] == 0 and facts["nms_threshold"] == 0.5
    sides = {name: facts["input"][name] for name in ("short_side", "longest_side")}
    assert sides == {"short_side": 96, "longest_side": 96} and facts["input"]["channels"] == "RGB"
    boxes, scores, classes, masks = detect(images(33, 140, batch=3))
    assert boxes.shape == (3, 20, 4) and scores.shape == classes.shape == (3, 20)
    assert masks.shape == (3, 20, 28, 28)
    assert list(facts["outputs"]) == ["boxes", "scores", "classes", "masks"]


@pytest.mark.parametrize("model", ["Faster R-CNN C4", "RetinaNet", "Mask R-CNN FPN of BGR images"])
def test_every_kind_of_detector_agrees_with_its_file(model, detector_cfg, tmp_path):
    threshold = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    run = write_run(detector_cfg(*threshold, *MODELS[model]), tmp_path / "run")
    done = export(run, tmp_path / "model.ts", "torchscript")
    assert all(each.difference.objects > 5 for each in done.comparisons)


@pytest.mark.slow
def test_a_program_of_torch_export_has_free_sizes(detector_run, tmp_path):
    done = export(detector_run, tmp_path / "model.pt2", "torch.export")
    extra = {METADATA_FILE: ""}
    detect = torch.export.load(done.file, extra_files=extra).module()
    assert json.loads(extra[METADATA_FILE]) == done.metadata
    assert [output.shape[0] for output in detect(images(70, 200, batch=3))] == [3, 3, 3, 3]
    smallest = done.metadata["input"]["smallest_side"]
    assert smallest == 65
    detect(images(smallest, smallest))
    with pytest.raises(AssertionError, match="Guard failed"):
        detect(images(smallest - 1, smallest))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("model", ["Faster R-CNN C4", "RetinaNet"])
def test_other_detectors_run_in_onnxruntime(model, detector_cfg, tmp_path):
    threshold = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    run = write_run(detector_cfg(*threshold, *MODELS[model]), tmp_path / "run")
    done = export(run, tmp_path / "model.onnx", "onnx")
    assert all(each.difference.objects > 5 for each in done.comparisons)


@pytest.fixture
def page_file(detector_run, scenes, tmp_path, monkeypatch):
    """A Mask R-CNN and a picture under the names of docs/export.md; returns its comparisons."""
    monkeypatch.chdir(tmp_path)
    Image.open(next((scenes / "val").glob("*.png"))).resize((120, 90)).save("photo.jpg")
    return export(detector_run, "my_segm.onnx", "onnx")


@needs_onnx
@pytest.mark.slow
def test_the_pages_lines_find_in_onnxruntime_what_the_detector_finds(page_file, detector_run):
    import onnx
    import onnxruntime

    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert all(each.difference.objects > 5 for each in page_file.comparisons)
    model = onnx.load("my_segm.onnx")
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["batch", 3, "height", "width"]
    assert model.opset_import[0].version == 18 and len(model.opset_import) == 1
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession("my_segm.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(value) for name, value in facts.items()} == page_file.metadata
    for size, batch in (((32, 40), 1), ((130, 65), 3)):
        found = session.run(None, {"images": images(*size, batch=batch).numpy()})
        assert [output.shape[:2] for output in found] == [(batch, 20)] * 4

    page = (ROOT / "docs" / "export.md").read_text()
    lines = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = {}
    for block in lines[:2]:
        exec(compile(block, "docs/export.md", "exec"), names)
    expected = Detector(detector_run, device="cpu")("photo.jpg")
    real = names["classes"] >= 0
    # The page resizes by Pillow, the detector by torch's kernel, which rounds otherwise.
    near = agreement.Bound(box=0.5, score=0.01, mask=1.0)
    found = agreement.compare(
        agreement.Detections(expected.boxes, expected.scores, expected.classes, None),
        agreement.Detections(
            names["boxes"][real], names["scores"][real], names["classes"][real], None
        ),
        agreement.Rules(0.0, 0.5, 20),
        near,
    )
    assert found.within(near) and found.objects > 5
    assert len(names["pasted"]) == real.sum() == len(expected)
    overlaps = [
        (ours & theirs).sum() / max((ours | theirs).sum(), 1)
        for ours, theirs in zip(names["pasted"], expected.masks, strict=True)
        if theirs.sum() > 50
    ]
    assert overlaps and np.median(overlaps) > 0.9


def refused(said, source, file, to="torchscript", **options):
    with pytest.raises(UserError, match=said) as raised:
        export(source, file, to, **options)
    assert len(str(raised.value).splitlines()) < 20
    return str(raised.value)


def test_a_captioner_is_refused_by_name(captioner_run, tmp_path):
    refused("captioning model .BicaptioningModel.* needs a detector", captioner_run, tmp_path / "x")


def test_a_run_that_has_not_finished_is_refused_and_its_checkpoint_is_not(detector_run, tmp_path):
    (detector_run / "model_final.pth").rename(detector_run / "model_0000001.pth")
    (detector_run / "last_checkpoint").write_text("model_0000001.pth")
    said = refused("has not finished", detector_run, tmp_path / "model.ts")
    checkpoint = detector_run / "model_0000001.pth"
    assert f"name the checkpoint: {checkpoint}" in said
    assert export(checkpoint, tmp_path / "model.ts", "torchscript").file.exists()


def test_a_run_without_weights_is_refused(detector_run, tmp_path):
    (detector_run / "model_final.pth").unlink()
    refused("has no trained weights", detector_run, tmp_path / "model.ts")


def test_what_exists_is_not_overwritten(detector_run, tmp_path):
    (tmp_path / "model.ts").write_text("of a user")
    refused("model.ts exists. Name another", detector_run, tmp_path / "model.ts")
    assert (tmp_path / "model.ts").read_text() == "of a user"
    refused("is a folder", detector_run, tmp_path)


def test_missing_packages_are_named_with_the_command_that_installs_them(
    detector_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    refused(
        r"onnx, onnxscript, onnxruntime, not installed here(?s:.*)virtex_det\[export\]",
        detector_run,
        tmp_path / "model.onnx",
        "onnx",
    )


def test_an_unknown_form_is_refused(detector_run, tmp_path):
    refused("no form 'coreml' .* onnx, torchscript, torch.export", detector_run, "x", "coreml")


def test_a_file_that_detects_otherwise_is_not_written(detector_run, tmp_path, monkeypatch):
    def read_and_move(path):
        detect = FORMS["torchscript"].read(path)

        def moved(given):
            boxes, *others = detect(given)
            return boxes + 0.1, *others

        return moved

    broken = FORMS["torchscript"]._replace(read=read_and_move)
    monkeypatch.setitem(FORMS, "broken", broken)
    said = refused(
        "otherwise than the model in 11 of 11", detector_run, tmp_path / "x", to="broken"
    )
    assert "1.0e-01" in said and "Allowed: 0.05 pixels" in said
    assert [path.name for path in tmp_path.iterdir()] == [detector_run.name]
    wide = Bound(box=0.2)
    assert export(detector_run, tmp_path / "x", "broken", bound=wide).file.exists()


def test_pictures_with_nothing_to_find_prove_nothing(detector_run, tmp_path):
    sure = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.999}
    refused("found nothing in the pictures", detector_run, tmp_path / "x", overrides=sure)
    assert not (tmp_path / "x").exists()


def test_pictures_of_ones_own_are_compared_at_their_sizes(detector_run, scenes, tmp_path):
    picture = Image.open(next((scenes / "val").glob("*.png"))).resize((200, 100))
    keys = {"DATASETS.TEST": (), "INPUT.MIN_SIZE_TEST": 120, "INPUT.MAX_SIZE_TEST": 400}
    done = export(detector_run, tmp_path / "x", "torchscript", overrides=keys, pictures=[picture])
    sizes = [(each.width, each.height) for each in done.comparisons]
    assert sizes == [(240, 120), (180, 90), (130, 65), (130, 65), (130, 65)]


@pytest.mark.parametrize(
    ("test", "said"), [((), "DATASETS.TEST is empty"), (("gone_val",), "gone_val")]
)
def test_without_the_test_set_pictures_must_be_named(
    detector_run, tmp_path, test, said, monkeypatch
):
    monkeypatch.delattr(exporting, "Detector")  # pictures are read before the model
    said = refused(said, detector_run, tmp_path / "x", overrides={"DATASETS.TEST": test})
    assert "Name pictures" in said


def test_what_pytorch_cannot_trace_is_one_screen(detector_run, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no such operator\n" + "stack\n" * 500)

    monkeypatch.setitem(FORMS, "broken", FORMS["torchscript"]._replace(write=fail))
    refused("RuntimeError: no such operator", detector_run, tmp_path / "x", to="broken")
    assert not (tmp_path / "x").exists()


def test_a_run_that_was_moved_is_exported(detector_run, tmp_path):
    shutil.move(detector_run, tmp_path / "moved")
    assert export(tmp_path / "moved", tmp_path / "x", "torchscript").file.exists()


def test_a_model_that_computes_in_bfloat16_is_exported_in_float32(detector_run, tmp_path):
    keys = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16"}
    done = export(detector_run, tmp_path / "x", "torchscript", overrides=keys)
    assert all(each.difference.score < 1e-5 for each in done.comparisons)


def test_of_many_pictures_ten_are_compared(detector_run, tmp_path):
    pictures = [np.full((70, 70, 3), shade, dtype=np.uint8) for shade in range(0, 250, 10)]
    done = export(detector_run, tmp_path / "x", "torchscript", pictures=pictures)
    assert len(done.comparisons) == 10 * 3 + 2
    assert len({each.picture for each in done.comparisons}) == 10
