import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det import get_cfg
from virtex_det.data.classes import (
    check_classes,
    check_unnamed_classes,
    class_table,
    compare_classes,
    model_classes,
    training_classes,
)
from virtex_det.errors import UserError


@pytest.fixture
def named():
    """Registers data sets that have nothing but class names."""
    names = []

    def register(name, classes, key="thing_classes"):
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**{key: classes} if classes else {"evaluator_type": "coco"})
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(
    number,
    architecture="GeneralizedRCNN",
    key="MODEL.ROI_HEADS.NUM_CLASSES",
    mapper="DetectionMapper",
):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", architecture, key, number, "DATALOADER.MAPPER", mapper]
    )
    return cfg


def test_the_same_classes_in_another_order_are_shown_side_by_side(named):
    names = [
        named("classes_a", ["bolt", "nut", "screw"]),
        named("classes_b", ["nut", "bolt", "screw"]),
    ]
    with pytest.raises(
        UserError,
        match=r"(?s)classes_a and classes_b .*\(3 and 3\).*0 +bolt +nut\n +1 +nut +bolt\n",
    ) as error:
        check_classes(config(3), names)
    assert "screw" not in str(error.value)


def test_a_missing_class_is_shown_as_missing(named):
    names = [named("classes_a", ["bolt", "nut"]), named("classes_b", ["bolt"])]
    with pytest.raises(UserError, match=r"1 +nut +\(none\)"):
        check_classes(config(2), names)


@pytest.mark.parametrize(
    ("architecture", "key", "mapper", "metadata"),
    [
        ("GeneralizedRCNN", "MODEL.ROI_HEADS.NUM_CLASSES", "DetectionMapper", "thing_classes"),
        ("RetinaNet", "MODEL.RETINANET.NUM_CLASSES", "DetectionMapper", "thing_classes"),
        ("ImageClassifier", "MODEL.CLASSIFIER.NUM_CLASSES", "ClassificationMapper", "classes"),
        (
            "MultilabelClassificationModel",
            "MODEL.CLASSIFIER.NUM_CLASSES",
            "MultilabelMapper",
            "thing_classes",
        ),
    ],
)
def test_the_number_is_compared_for_every_kind_of_model(architecture, key, mapper, metadata, named):
    name = named("classes_a", ["bolt", "nut"], metadata)
    check_classes(config(2, architecture, key, mapper), [name])
    for number in (1, 3, 80):
        with pytest.raises(
            UserError,
            match=f"has {number} classes, but data set classes_a has 2: bolt, nut\nSet {key} 2",
        ):
            check_classes(config(number, architecture, key, mapper), [name])


def test_for_an_unknown_model_only_names_are_compared(named):
    cfg = config(80, "SomeDetector")
    check_classes(cfg, [named("classes_a", ["bolt"])])
    with pytest.raises(UserError, match="have different classes"):
        check_classes(cfg, ["classes_a", named("classes_b", ["nut"])])


def test_a_model_of_captions_has_no_classes(named):
    cfg = config(80, "BicaptioningModel", mapper="CaptionMapper")
    check_classes(cfg, [named("classes_a", ["bolt"]), named("classes_b", ["nut"])])
    assert model_classes(cfg) is None


def test_a_data_set_without_class_names_is_compared_by_number(named):
    name = named("classes_unnamed", None)
    dicts = [{"image_id": 5, "annotations": [{"category_id": 1}]}]
    check_unnamed_classes(config(2), name, dicts)
    with pytest.raises(
        UserError, match="image 5 has class 1, counted from 0, but MODEL.ROI_HEADS.NUM_CLASSES is 1"
    ):
        check_unnamed_classes(config(1), name, dicts)


def test_the_classes_trained_on_are_those_of_the_first_set_that_names_any(named):
    cfg = config(1)
    cfg.DATASETS.TRAIN = (
        named("classes_unnamed", None),
        named("classes_a", ["bolt"]),
        "not registered",
    )
    assert training_classes(cfg) == ("bolt",)


def test_many_differences_are_shown_in_part():
    with pytest.raises(UserError, match="and 95 more"):
        compare_classes(
            {"a": [f"a{k}" for k in range(100)], "b": [f"b{k}" for k in range(100)]}, ""
        )


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_a_table_counts_the_objects_of_classes_by_their_own_names(number):
    classes = ["1e3", "007", "a | b", "nan", "1_0", "x\x1b[2J", "nut"][:number]
    annotations = [{"category_id": place} for place in range(number) for _ in range(place + 1)]
    dicts = [{"annotations": annotations}, {"annotations": [{"category_id": 0, "iscrowd": 1}]}]
    lines = class_table(dicts, classes).splitlines()
    cells = [
        cell.strip()
        for line in lines[2:]
        for cell in line.replace("a | b", "a / b").strip("|").split("|")
    ]
    shown = dict(zip(cells[::2], cells[1::2], strict=True))
    wanted = {name: str(place) for place, name in enumerate(classes, start=1)}
    wanted = {
        name.replace("|", "/").replace("\x1b", "\\x1b"): count for name, count in wanted.items()
    }
    assert wanted.items() <= shown.items() and shown["total"] == str(len(annotations))
