import json
import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.evaluation.pascal_voc_evaluation import voc_ap
from PIL import Image

from virtex_det.errors import UserError
from virtex_det.evaluation.probes import (
    ABSENT,
    DIFFICULT,
    PRESENT,
    Examples,
    average_precision_11_points,
    probe_classes,
    read_labels,
)

joblib = pytest.importorskip("joblib", reason="scikit-learn is not installed")


@pytest.fixture(autouse=True)
def _in_this_process():
    with joblib.parallel_config(backend="sequential"):
        yield


def plain_average_precision(labels, scores):
    """The definition of Everingham et al. 2010, point by point."""
    ranked = [
        label for _, label in sorted(zip(-scores, labels, strict=True), key=lambda pair: pair[0])
    ]
    total, best = sum(ranked), [0.0] * 11
    for count in range(1, len(ranked) + 1):
        hits = sum(ranked[:count])
        for level in range(11):
            if 10 * hits >= level * total:
                best[level] = max(best[level], hits / count)
    return sum(best) / 11


def ranking(seed, positives):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(40) < positives
    return labels, rng.normal(size=40) + labels


@pytest.mark.parametrize("positives", [1, 2, 5, 10, 20, 40])
def test_average_precision_is_that_of_the_plain_definition(positives):
    labels, scores = ranking(positives, positives)
    expected = plain_average_precision(labels.tolist(), scores)
    assert average_precision_11_points(labels, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_detectron2(seed):
    labels, scores = ranking(seed, 7)  # no recall is a tenth, which Detectron2 rounds
    hits = np.cumsum(labels[np.argsort(-scores)])
    expected = voc_ap(hits / 7, hits / np.arange(1, 41), use_07_metric=True)
    assert average_precision_11_points(labels, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [([1, 1, 0, 0], 1.0), ([0, 0, 0, 1], 0.25), ([1, 0, 0, 1], (6 * 1 + 5 * 0.5) / 11)],
)
def test_average_precision_by_hand(ranked, expected):
    scores = np.arange(len(ranked), 0, -1)
    assert average_precision_11_points(np.array(ranked, dtype=bool), scores) == pytest.approx(
        expected
    )


def test_images_of_equal_score_have_no_order():
    for labels in ([True, False], [False, True]):
        assert average_precision_11_points(np.array(labels), np.zeros(2)) == pytest.approx(0.5)


def examples(count, seed, classes=2, informative=3.0):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((count, classes)) < 0.3, PRESENT, ABSENT)
    features = rng.normal(size=(count, 8))
    features[:, :classes] += informative * (labels == PRESENT)
    return Examples(features / np.linalg.norm(features, axis=1, keepdims=True), labels)


def slowly(train, test, costs, folds):
    """The protocol in VirTex's own order, over scikit-learn: every cost cross-validated, the
    best fitted again.
    """
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import LinearSVC

    found = []
    for shown, truth in zip(train.labels.T, test.labels.T, strict=True):
        target = np.where(shown == PRESENT, 1, -1)
        weights = {1: 2, -1: 1}
        svms = [
            LinearSVC(C=c, class_weight=weights, loss="squared_hinge", max_iter=2000) for c in costs
        ]
        quality = [
            cross_val_score(
                svm, train.features, target, cv=folds, scoring="average_precision"
            ).mean()
            for svm in svms
        ]
        svm = svms[int(np.argmax(quality))].fit(train.features, target)
        kept = truth != DIFFICULT
        scores = svm.decision_function(test.features[kept])
        found.append(
            (
                average_precision_11_points(truth[kept] == 1, scores),
                average_precision_score(truth[kept], scores),
            )
        )
    return found


def test_the_probe_is_the_published_protocol():
    train, test = examples(60, 0, informative=0.6), examples(50, 1, informative=0.6)
    test.labels[:5, 0] = train.labels[:5, 0] = DIFFICULT
    found = probe_classes(train, test, ["ant", "bee"])
    expected = slowly(train, test, (0.01, 0.1, 1.0, 10.0), 3)
    assert [found["AP-ant"], found["AP-bee"]] == pytest.approx(
        [100 * points for points, _ in expected], abs=1e-6
    )
    assert found["mAP"] == pytest.approx((found["AP-ant"] + found["AP-bee"]) / 2)
    assert found["mAP-area"] == pytest.approx(
        100 * np.mean([area for _, area in expected]), abs=1e-6
    )


def test_difficult_images_are_left_out_of_the_test():
    train, test = examples(60, 0), examples(50, 1)
    spoilt = Examples(test.features.copy(), test.labels.copy())
    spoilt.features[:10] *= -1
    spoilt.labels[:10] = DIFFICULT
    kept = Examples(test.features[10:], test.labels[10:])
    assert probe_classes(train, spoilt, ["ant", "bee"]) == probe_classes(
        train, kept, ["ant", "bee"]
    )


def test_difficult_images_are_negatives_in_training():
    train, test = examples(60, 0, informative=1.0), examples(50, 1, informative=1.0)
    negative = Examples(train.features, train.labels.copy())
    train.labels[train.labels[:, 0] == ABSENT, 0] = DIFFICULT
    assert probe_classes(train, test, ["ant", "bee"]) == probe_classes(
        negative, test, ["ant", "bee"]
    )


@pytest.mark.parametrize(("positives", "said"), [(2, "2 folds choose"), (1, "the middle one")])
def test_a_class_of_fewer_images_than_folds_is_probed_with_a_warning(positives, said, caplog):
    train, test = examples(60, 0), examples(50, 1)
    train.labels[:, 0] = ABSENT
    train.labels[:positives, 0] = PRESENT
    with caplog.at_level(logging.WARNING, logger="virtex_det"):
        found = probe_classes(train, test, ["ant", "bee"])
    assert 0 < found["AP-ant"] <= 100
    assert f"'ant' is in {positives} of 60 training images" in caplog.text and said in caplog.text
    assert "bee" not in caplog.text


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_that_one_part_does_not_show_does_not_count(part):
    parts = {"train": examples(60, 0), "test": examples(50, 1)}
    parts[part].labels[:, 0] = ABSENT
    found = probe_classes(**parts, classes=["ant", "bee"])
    assert np.isnan(found["AP-ant"]) and found["mAP"] == found["AP-bee"]


def test_nothing_shown_at_all_is_an_error():
    train, test = examples(60, 0), examples(50, 1)
    test.labels[:] = ABSENT
    with pytest.raises(UserError, match="nothing to average"):
        probe_classes(train, test, ["ant", "bee"])


def test_costs_and_folds_can_be_chosen(caplog):
    train, test = examples(60, 0), examples(50, 1)
    with caplog.at_level(logging.INFO, logger="virtex_det"):
        probe_classes(train, test, ["ant", "bee"], costs=(0.5,), folds=2)
    assert "0.5" in caplog.text


@pytest.mark.parametrize(("costs", "folds"), [((0.0, 1.0), 3), ((), 3), ((1.0,), 1)])
def test_costs_and_folds_that_cannot_be_tried_are_an_error(costs, folds):
    with pytest.raises(UserError, match="at least 2 folds"):
        probe_classes(examples(60, 0), examples(50, 1), ["ant", "bee"], costs, folds)


@pytest.fixture
def voc(tmp_path):
    """A cat; a difficult cat and a dog; a difficult cat before another, and after it."""
    objects = {
        "1": [("cat", 0)],
        "2": [("cat", 1), ("dog", 0)],
        "3": [("cat", 1), ("cat", 0)],
        "4": [("cat", 0), ("cat", 1)],
    }
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("1\n2\n3\n4\n")
    for image_id, found in objects.items():
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        entries = "<size><width>9</width><height>9</height></size>" + "".join(
            f"<object><name>{n}</name><difficult>{d}</difficult>{box}</object>" for n, d in found
        )
        (tmp_path / "Annotations" / f"{image_id}.xml").write_text(
            f"<annotation>{entries}</annotation>"
        )
    register_pascal_voc("voc_probe_test", str(tmp_path), "test", 2007, ("cat", "dog"))
    yield "voc_probe_test"
    DatasetCatalog.remove("voc_probe_test")
    MetadataCatalog.remove("voc_probe_test")


def test_only_a_class_all_of_whose_objects_are_difficult_is_difficult(voc):
    labels = {image_id: found.tolist() for image_id, found in read_labels(voc).items()}
    assert labels == {
        "1": [PRESENT, ABSENT],
        "2": [DIFFICULT, PRESENT],
        "3": [PRESENT, ABSENT],
        "4": [PRESENT, ABSENT],
    }


def coco(path, annotations, categories=("ring", "star")):
    """Register two images with annotations in COCO's format; return the name."""
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": 9, "height": 9}
            for number in (3, 4)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "iscrowd": crowd,
                "bbox": [1, 1, 4, 4],
                "area": 16,
            }
            for number, (image, category, crowd) in enumerate(annotations, start=1)
        ],
        "categories": [
            {"id": number, "name": name} for number, name in enumerate(categories, start=5)
        ],
    }
    path.write_text(json.dumps(content))
    for number in (3, 4):
        Image.new("RGB", (9, 9)).save(path.parent / f"{number}.png")
    register_coco_instances("coco_probe_test", {}, str(path), str(path.parent))
    return "coco_probe_test"


@pytest.fixture
def _registered():
    yield
    DatasetCatalog.remove("coco_probe_test")
    MetadataCatalog.remove("coco_probe_test")


@pytest.mark.usefixtures("_registered")
def test_labels_of_coco_are_by_class_and_a_class_that_only_a_crowd_shows_is_difficult(tmp_path):
    name = coco(tmp_path / "boxes.json", [(3, 5, 1), (3, 6, 1), (3, 6, 0), (4, 5, 0)])
    labels = {image_id: found.tolist() for image_id, found in read_labels(name).items()}
    assert labels == {3: [DIFFICULT, PRESENT], 4: [PRESENT, ABSENT]}


@pytest.mark.usefixtures("_registered")
def test_a_dataset_without_boxes_is_an_error_that_names_one_with_boxes(tmp_path):
    name = coco(tmp_path / "boxes.json", [])
    with pytest.raises(UserError, match=r"(?s)coco_probe_test.*no boxes.*voc_2007_trainval"):
        read_labels(name)
