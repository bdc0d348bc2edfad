import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from detectron2.structures import Boxes, Instances

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections, concatenate, read_detections
from virtex_det.evaluation.detection.voc import THRESHOLDS, VOCAveragePrecision, VOCGroundTruth

NAMES = ("cat", "dog", "cow")


def write_voc(folder, images, names=NAMES, size=(60, 80)):
    """Write an image set; an object is (class, xmin, ymin, xmax, ymax, difficult)."""
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(images) + "\n")
    for name, objects in images.items():
        text = ""
        for place, *box, difficult in objects:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            text += (
                f"<object><name>{names[place]}</name><pose>Left</pose><truncated>0</truncated>"
                f"<difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
            )
        size_text = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation>{size_text}{text}</annotation>"
        )
    return folder


def random_voc(folder, seed):
    """Objects of three classes, some difficult, some twice in the same place; some empty images."""
    random = np.random.default_rng(seed)
    images = {}
    for image in range(12):
        objects = []
        for _ in range(image % 6):
            low = random.integers(1, 40, 2)
            high = low + random.integers(3, 20, 2)
            objects.append(
                (
                    int(random.integers(3)),
                    *low.tolist(),
                    *high.tolist(),
                    int(random.random() < 0.25),
                )
            )
        images[f"2009_{image:06d}"] = objects + objects[:1]
    return write_voc(folder, images)


def found_near(truth, seed, spread=1.5):
    """Detections as a model gives them, by image: boxes of float32 near the objects, scores of
    which many are close.
    """
    random = np.random.default_rng(seed)
    found = []
    for objects in truth.objects:
        places = (
            random.integers(0, len(objects.classes), 3 * len(objects.classes))
            if len(objects.classes)
            else []
        )
        boxes = (
            objects.boxes[places].reshape(-1, 4)
            - [1, 1, 0, 0]
            + random.normal(0, spread, (len(places), 4))
        )
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = np.where(random.random(len(places)) < 0.9, objects.classes[places], 0).astype(
            np.int64
        )
        found.append(
            (boxes.astype(np.float32), random.random(len(places)).astype(np.float32) ** 3, classes)
        )
    return found


def as_detections(found, image):
    boxes, scores, classes = found[image]
    corners = boxes.astype(np.float64)
    columns = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    return Detections(np.full(len(scores), image), classes, scores.astype(np.float64), columns)


def ours(truth, found, order=None):
    metric = VOCAveragePrecision(truth)
    for image in range(len(found)) if order is None else order:
        metric.update([image], as_detections(found, image))
    return metric.result()


def reference(folder, split, truth, found, work):
    """AP by metric, class and threshold of Detectron2's ``voc_eval``, from files as its
    evaluator writes them.
    """
    for place, name in enumerate(truth.class_names):
        lines = [
            f"{image} {score:.3f} {box[0] + 1:.1f} {box[1] + 1:.1f} {box[2]:.1f} {box[3]:.1f}"
            for image, (boxes, scores, classes) in zip(truth.images, found, strict=True)
            for box, score, found_class in zip(boxes, scores.tolist(), classes, strict=True)
            if found_class == place
        ]
        (work / f"{name}.txt").write_text("\n".join(lines))
    annotations, image_set = (
        f"{folder}/Annotations/{{}}.xml",
        f"{folder}/ImageSets/Main/{split}.txt",
    )
    tables = {}
    for metric, is_2007 in (("11point", True), ("area", False)):
        tables[metric] = np.array(
            [
                [
                    100
                    * voc_eval(
                        f"{work}/{{}}.txt", annotations, image_set, name, threshold, is_2007
                    )[2]
                    for threshold in THRESHOLDS
                ]
                for name in truth.class_names
            ]
        )
    return tables


def assert_equals_reference(numbers, tables, names, metric):
    for name, table in tables.items():
        assert numbers[f"AP_{name}"] == pytest.approx(table.mean(), abs=1e-9)
        assert numbers[f"AP50_{name}"] == pytest.approx(table[:, 0].mean(), abs=1e-9)
        assert numbers[f"AP75_{name}"] == pytest.approx(table[:, 5].mean(), abs=1e-9)
    for place, name in enumerate(names):
        assert numbers[f"AP-{name}"] == pytest.approx(tables[metric][place].mean(), abs=1e-9)
    assert all(numbers[name] == numbers[f"{name}_{metric}"] for name in ("AP", "AP50", "AP75"))


@pytest.mark.parametrize(("year", "metric"), [(2007, "11point"), (2012, "area")])
@pytest.mark.parametrize("seed", range(5))
def test_random_objects_give_voc_evals_numbers(seed, year, metric, tmp_path):
    folder = random_voc(tmp_path / "voc", seed)
    truth = VOCGroundTruth.read(folder, "test", NAMES, year)
    found = found_near(truth, seed)
    tables = reference(folder, "test", truth, found, tmp_path)
    assert 5 < tables["area"].mean() < 95 and tables["area"].std() > 1
    assert_equals_reference(ours(truth, found), tables, NAMES, metric)


def test_real_voc_gives_the_numbers_of_detectron2s_evaluator(samples, tmp_path):
    folder = samples / "voc_mini" / "VOC2007"
    truth = VOCGroundTruth.read(folder, "test", CLASS_NAMES, 2007)
    assert sum(objects.difficult.sum() for objects in truth.objects) > 5
    found = found_near(truth, 0, spread=15)
    numbers = ours(truth, found)
    assert_equals_reference(
        numbers, reference(folder, "test", truth, found, tmp_path), CLASS_NAMES, "11point"
    )
    theirs = detectron2s_evaluator(folder, truth, found)
    assert 10 < theirs["AP"] < 90
    assert {name: numbers[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


def detectron2s_evaluator(folder, truth, found):
    name = f"test_voc_{id(found)}"
    MetadataCatalog.get(name).set(
        dirname=str(folder), split="test", year=2007, thing_classes=list(CLASS_NAMES)
    )
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for image, (boxes, scores, classes) in zip(truth.images, found, strict=True):
        instances = Instances((1, 1))
        instances.pred_boxes = Boxes(torch.from_numpy(boxes))
        instances.scores, instances.pred_classes = (
            torch.from_numpy(scores),
            torch.from_numpy(classes),
        )
        evaluator.process([{"image_id": image}], [{"instances": instances}])
    MetadataCatalog.remove(name)
    return dict(evaluator.evaluate()["bbox"])


@pytest.fixture
def case(tmp_path):
    folder = random_voc(tmp_path / "voc", 7)
    truth = VOCGroundTruth.read(folder, "test", NAMES, 2012)
    return SimpleNamespace(folder=folder, truth=truth, found=found_near(truth, 7))


def test_the_order_in_which_images_come_does_not_matter(case):
    assert ours(case.truth, case.found, range(11, -1, -1)) == ours(case.truth, case.found)


def test_states_of_several_processes_merge_into_the_numbers_of_one(case):
    states = []
    for rank in range(3):
        metric, images = VOCAveragePrecision(case.truth), range(rank, 12, 3)
        metric.update(
            list(images), concatenate([as_detections(case.found, image) for image in images])
        )
        states.append(metric.state())
    merged = VOCAveragePrecision(case.truth)
    merged.merge_states(reversed(states))
    assert merged.result() == ours(case.truth, case.found)
    with pytest.raises(UserError, match="image 0 was evaluated twice"):
        merged.merge_states([states[0], states[0]])


def test_images_that_were_never_shown_count_as_without_detections(case):
    found = [
        part if image < 6 else tuple(column[:0] for column in part)
        for image, part in enumerate(case.found)
    ]
    assert ours(case.truth, found, range(6)) == ours(case.truth, found)


def test_names_are_those_of_the_numbers(case):
    metric = VOCAveragePrecision(case.truth)
    assert metric.names() == list(metric.result())


def test_no_detections_at_all_are_an_ap_of_0(case):
    numbers = ours(case.truth, case.found, [])
    assert set(numbers.values()) == {0.0}


def test_classes_without_an_object_are_nan_told_of_and_not_in_the_mean(tmp_path, caplog):
    images = {"000001": [(0, 5, 5, 20, 20, 0), (1, 5, 5, 20, 20, 1)]}
    truth = VOCGroundTruth.read(write_voc(tmp_path / "voc", images), "test", NAMES, 2007)
    metric = VOCAveragePrecision(truth)
    box = np.array([[4.0, 4.0, 16.0, 16.0]])
    metric.update([0], Detections(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1), box))
    with caplog.at_level(logging.WARNING):
        numbers = metric.result()
    assert numbers["AP"] == numbers["AP50_area"] == numbers["AP-cat"] == pytest.approx(100)
    assert math.isnan(numbers["AP-dog"]) and math.isnan(numbers["AP-cow"])
    assert "2 classes have no object" in caplog.text and "dog, cow" in caplog.text


def test_an_overlap_has_to_be_more_than_the_threshold(tmp_path):
    truth = VOCGroundTruth.read(
        write_voc(tmp_path / "voc", {"000001": [(0, 1, 1, 10, 10, 0)]}), "test", NAMES, 2012
    )
    metric = VOCAveragePrecision(truth)
    half = np.array([[0.0, 0.0, 10.0, 5.0]])
    metric.update([0], Detections(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1), half))
    assert metric.result()["AP50"] == 0


def test_images_are_known_by_their_names(case):
    assert case.truth.image_key("2009_000003") == 3 and not case.truth.has_masks
    with pytest.raises(UserError, match="image 2009_000099 is not in the image set"):
        case.truth.image_key("2009_000099")


def test_numbers_in_a_results_file_are_no_places_in_the_image_set(case, tmp_path):
    box = {"image_id": 3, "category_id": 0, "bbox": [4.0, 4.0, 16.0, 16.0], "score": 0.9}
    (tmp_path / "results.json").write_text(json.dumps([box]))
    with pytest.raises(
        UserError, match="image 3 is not in the image set.*a name such as '2009_000000'"
    ):
        read_detections(tmp_path / "results.json", case.truth.image_key)


def test_scores_of_a_results_file_round_as_detectron2_writes_them(tmp_path):
    """0.1235 is a little less as a float, so that it comes to 0.123, behind the better of the
    two boxes.
    """
    truth = VOCGroundTruth.read(
        write_voc(tmp_path / "voc", {"000001": [(0, 5, 5, 20, 20, 0)]}), "test", NAMES, 2012
    )
    boxes = np.array([[40.0, 4.0, 9.0, 9.0], [4.0, 4.0, 16.0, 16.0]])
    metric = VOCAveragePrecision(truth)
    metric.update(
        [0],
        Detections(np.zeros(2, np.int64), np.zeros(2, np.int64), np.array([0.1235, 0.1239]), boxes),
    )
    assert f"{np.float32(0.1235):.3f}" == "0.123" and metric.result()["AP"] == pytest.approx(100)


def test_bad_detections_are_refused(case):
    metric = VOCAveragePrecision(case.truth)
    with pytest.raises(UserError, match="has category 3"):
        metric.update(
            [0], Detections(np.zeros(1, np.int64), np.array([3]), np.ones(1), np.ones((1, 4)))
        )
    with pytest.raises(UserError, match="score nan"):
        metric.update(
            [1],
            Detections(np.ones(1, np.int64), np.array([0]), np.array([math.nan]), np.ones((1, 4))),
        )
    with pytest.raises(UserError, match="image 12 is not in the image set of 12"):
        metric.update([12], Detections.empty())


def test_objects_of_other_classes_are_left_out_and_difficult_may_be_absent(tmp_path):
    folder = write_voc(tmp_path / "voc", {"000001": [(0, 5, 5, 20, 20, 0), (1, 5, 5, 20, 20, 0)]})
    path = folder / "Annotations" / "000001.xml"
    path.write_text(path.read_text().replace("<difficult>0</difficult>", ""))
    objects = VOCGroundTruth.read(folder, "test", ["dog"], 2007).objects[0]
    assert objects.classes.tolist() == [0] and objects.difficult.tolist() == [False]
    assert objects.boxes.tolist() == [[5, 5, 20, 20]]


def test_broken_annotations_are_refused_by_name(case):
    path = case.folder / "Annotations" / "2009_000005.xml"
    text = path.read_text()
    for broken in (
        text[:-20],
        text.replace("<xmin>", "<xmin>x"),
        text.replace("<ymax>", "<ymax>nan"),
        None,
    ):
        path.unlink() if broken is None else path.write_text(broken)
        with pytest.raises(UserError, match="2009_000005.xml"):
            VOCGroundTruth.read(case.folder, "test", NAMES, 2007)


def test_an_image_set_that_is_absent_or_repeats_is_refused(case):
    with pytest.raises(UserError, match="val.txt does not exist"):
        VOCGroundTruth.read(case.folder, "val", NAMES, 2007)
    (case.folder / "ImageSets" / "Main" / "val.txt").write_text("2009_000001\n2009_000001\n")
    with pytest.raises(UserError, match="names an image twice"):
        VOCGroundTruth.read(case.folder, "val", NAMES, 2007)


def test_another_year_is_an_error(case):
    with pytest.raises(UserError, match="VOC 2010: expected the year 2007 or 2012"):
        VOCGroundTruth.read(case.folder, "test", NAMES, 2010)
