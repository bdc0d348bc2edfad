"""The streaming evaluator against Detectron2's own, on the same output of a model."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.modeling import detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm

from tests.processes import launch_processes
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.box_masks import UNPASTED
from virtex_det.evaluation.detection.evaluator import DetectionEvaluator
from virtex_det.evaluation.reference import LVISEvaluator

HEIGHT, WIDTH = 60, 90
CATEGORY_IDS = (3, 7, 11)  # with holes, as COCO's
IMAGES = 8


def annotations(style: str = "coco", number: int = IMAGES) -> dict:
    """Boxes with an octagon in each; every third image is empty."""
    rng = np.random.default_rng(0)
    images = [
        {"id": 100 + index, "height": HEIGHT, "width": WIDTH, "file_name": ""}
        for index in range(number)
    ]
    objects = []
    for image in images:
        for _ in range(0 if image["id"] % 3 == 0 else 4):
            x, y, w, h = *rng.uniform(0, 40, 2), *rng.uniform(10, 35, 2)
            h = min(h, HEIGHT - y)
            corners = [
                (0.3, 0),
                (0.7, 0),
                (1, 0.3),
                (1, 0.7),
                (0.7, 1),
                (0.3, 1),
                (0, 0.7),
                (0, 0.3),
            ]
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice(CATEGORY_IDS)),
                    "bbox": [x, y, w, h],
                    "area": 0.8 * w * h,
                    "iscrowd": 0,
                    "segmentation": [
                        [value for a, b in corners for value in (x + a * w, y + b * h)]
                    ],
                }
            )
    categories = [{"id": index, "name": f"thing {index}"} for index in CATEGORY_IDS]
    if style == "lvis":
        for image in images:
            image |= {"neg_category_ids": [7], "not_exhaustive_category_ids": [11]}
        for category, frequency in zip(categories, "rcf", strict=True):
            category |= {"frequency": frequency}
        objects = [
            {name: value for name, value in entry.items() if name != "iscrowd"} for entry in objects
        ]
    return {"info": {}, "images": images, "annotations": objects, "categories": categories}


def register(folder: Path, style: str = "coco", content: dict | None = None) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{style}.json"
    path.write_text(json.dumps(content or annotations(style)))
    name = str(path)
    if name not in MetadataCatalog.list():
        MetadataCatalog.get(name).set(
            json_file=str(path),
            evaluator_type=style,
            thing_classes=[f"thing {index}" for index in CATEGORY_IDS],
            thing_dataset_id_to_contiguous_id={
                index: place for place, index in enumerate(CATEGORY_IDS)
            },
        )
    return name


def network_output(content: dict, masks: bool = True) -> list[tuple[dict, Instances]]:
    """Dataset dicts and a network's detections at twice the image's size: near objects and not."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for image in content["images"]:
        near = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        boxes = torch.tensor([entry["bbox"] for entry in near] + [[20.0, 20, 30, 30]] * 3)
        boxes += torch.randn(boxes.shape, generator=generator) * 2
        boxes[:, 2:] += boxes[:, :2]
        classes = [CATEGORY_IDS.index(entry["category_id"]) for entry in near] + [0, 1, 2]
        found = Instances((2 * HEIGHT, 2 * WIDTH))
        found.pred_boxes = Boxes(2 * boxes)
        found.pred_boxes.clip(found.image_size)
        found.scores = (torch.rand(len(boxes), generator=generator) * 20).round() / 20  # with ties
        found.pred_classes = torch.tensor(classes)
        if masks:
            line = torch.linspace(-1, 1, 28)
            noise = torch.rand(len(boxes), 1, 28, 28, generator=generator)
            found.pred_masks = torch.sigmoid(8 * (1 - line[:, None] ** 4 - line**4) + noise - 1)
        batches.append(({"image_id": image["id"], "height": HEIGHT, "width": WIDTH}, found))
    return batches


def copy_of(instances: Instances) -> Instances:
    """Detectron2 changes boxes in place."""
    fields = {name: value.clone() for name, value in instances.get_fields().items()}
    return Instances(instances.image_size, **fields)


def run(evaluator, batches, unpasted: bool = True, only: slice = slice(None)) -> dict:
    evaluator.reset()
    for example, instances in batches[only]:
        if unpasted:
            output = {UNPASTED: copy_of(instances)}
        else:
            output = {"instances": detector_postprocess(copy_of(instances), HEIGHT, WIDTH)}
        evaluator.process([example], [output])
    return evaluator.evaluate()


def agree(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for task, numbers in theirs.items():
        assert {name: ours[task][name] for name in numbers} == pytest.approx(
            numbers, abs=1e-9, nan_ok=True
        )


@pytest.fixture
def coco(tmp_path) -> str:
    return register(tmp_path)


@pytest.mark.parametrize("masks", [True, False])
def test_coco_numbers_are_those_of_detectron2(masks, coco, tmp_path):
    batches = network_output(annotations(), masks)
    theirs = run(COCOEvaluator(coco, use_fast_impl=False), batches, unpasted=False)
    ours = run(DetectionEvaluator(coco, tmp_path / "ours"), batches)
    agree(ours, theirs)
    assert set(ours) == ({"bbox", "segm"} if masks else {"bbox"})
    assert 5 < ours["bbox"]["AP"] < 95 and {"AR1", "ARl", "AP-thing 7"} <= set(ours["bbox"])


def test_lvis_numbers_are_those_of_detectron2(tmp_path):
    name = register(tmp_path, "lvis")
    batches = network_output(annotations("lvis"))
    theirs = run(LVISEvaluator(name), batches, unpasted=False)
    # Where there is nothing to find lvis says -1, which Detectron2 turns into percent.
    theirs = {
        task: {k: math.nan if v == -100 else v for k, v in numbers.items()}
        for task, numbers in theirs.items()
    }
    ours = run(DetectionEvaluator(name, tmp_path / "ours"), batches)
    agree(ours, theirs)
    assert {"APr", "APc", "APf", "AP-thing 11"} <= set(ours["segm"])


def test_voc_numbers_are_those_of_detectron2_on_real_annotations(samples, tmp_path):
    folder = samples / "voc_mini" / "VOC2007"
    names = tuple(MetadataCatalog.get("voc_2007_test").thing_classes)
    metadata = MetadataCatalog.get("voc_of_this_test")
    metadata.set(
        dirname=str(folder),
        split="test",
        year=2007,
        thing_classes=list(names),
        evaluator_type="pascal_voc",
    )
    image_ids = (folder / "ImageSets" / "Main" / "test.txt").read_text().split()
    generator = torch.Generator().manual_seed(0)
    theirs, ours = (
        PascalVOCDetectionEvaluator("voc_of_this_test"),
        DetectionEvaluator("voc_of_this_test", tmp_path),
    )
    theirs.reset(), ours.reset()
    for place, image_id in enumerate(image_ids):
        objects = ours.truth.objects[place]
        boxes = torch.tensor(objects.boxes).float() - torch.tensor([1.0, 1, 0, 0])
        found = Instances((500, 500))
        found.pred_boxes = Boxes(boxes + 8 * torch.randn(boxes.shape, generator=generator))
        found.scores = torch.rand(len(boxes), generator=generator)
        found.pred_classes = torch.tensor(objects.classes)
        for evaluator in (theirs, ours):
            evaluator.process([{"image_id": image_id}], [{"instances": found}])
    wanted, numbers = theirs.evaluate()["bbox"], ours.evaluate()["bbox"]
    assert numbers["AP50"] > 5
    assert {name: numbers[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)
    rows = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {row["image_id"] for row in rows} <= set(image_ids)


@pytest.mark.parametrize("wrap", [lambda masks: masks, BitMasks])
def test_masks_that_are_pasted_already_give_the_same(wrap, coco, tmp_path):
    batches = network_output(annotations())
    evaluator = DetectionEvaluator(coco, tmp_path / "pasted")
    evaluator.reset()
    for example, instances in batches:
        pasted = detector_postprocess(copy_of(instances), HEIGHT, WIDTH)
        pasted.pred_masks = wrap(pasted.pred_masks)
        evaluator.process([example], [{"instances": pasted}])
    assert evaluator.evaluate() == run(DetectionEvaluator(coco, tmp_path / "unpasted"), batches)


def test_the_results_file_is_the_one_that_detectron2_writes(coco, tmp_path):
    batches = network_output(annotations())
    run(
        COCOEvaluator(coco, output_dir=str(tmp_path / "theirs"), use_fast_impl=False),
        batches,
        unpasted=False,
    )
    run(DetectionEvaluator(coco, tmp_path / "ours"), batches)
    ours, theirs = (
        json.loads((tmp_path / who / "coco_instances_results.json").read_text())
        for who in ("ours", "theirs")
    )
    assert ours == theirs and len(ours) > 30
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["coco_instances_results.json"]


def test_an_evaluator_begins_anew_with_each_reset(coco, tmp_path):
    evaluator, batches = DetectionEvaluator(coco, tmp_path), network_output(annotations())
    assert run(evaluator, batches) == run(evaluator, batches)


def test_finding_nothing_at_all_is_zero_with_a_warning(coco, tmp_path, caplog):
    batches = [(example, instances[:0]) for example, instances in network_output(annotations())]
    results = run(DetectionEvaluator(coco, tmp_path), batches)
    assert results["bbox"]["AP"] == results["segm"]["AP"] == results["segm"]["AR100"] == 0
    assert "found nothing at all" in caplog.text
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == []


def test_images_that_were_not_shown_count_as_without_detections_and_are_counted(
    coco, tmp_path, caplog
):
    batches = network_output(annotations())
    results = run(DetectionEvaluator(coco, tmp_path), batches, only=slice(0, 5))
    assert "3 of 8 images were not shown" in caplog.text
    nothing = [(example, instances[:0]) for example, instances in batches[5:]]
    assert results == run(DetectionEvaluator(coco, tmp_path), batches[:5] + nothing)


def test_images_without_detections_may_come_without_masks(tmp_path):
    content = annotations(number=70)
    name = register(tmp_path, content=content)
    batches = network_output(content)
    empty = [*range(3), *range(60, 70)]
    wanted = [
        (example, found[:0] if place in empty else found)
        for place, (example, found) in enumerate(batches)
    ]
    numbers = run(DetectionEvaluator(name, tmp_path / "ours"), wanted)
    for place in empty:
        batches[place][1].remove("pred_masks")
        batches[place] = (batches[place][0], batches[place][1][:0])
    assert run(DetectionEvaluator(name, tmp_path / "ours"), batches) == numbers


def test_masks_that_nothing_is_annotated_for_leave_box_ap(tmp_path, caplog):
    content = annotations()
    for entry in content["annotations"]:
        del entry["segmentation"]
    name = register(tmp_path, content=content)
    results = run(DetectionEvaluator(name, tmp_path / "ours"), network_output(content))
    assert set(results) == {"bbox"} and caplog.text.count("only boxes are measured") == 1


def test_a_test_set_without_annotations_gets_a_results_file(tmp_path, caplog):
    content = annotations()
    batches = network_output(content)
    del content["annotations"]
    name = register(tmp_path, content=content)
    assert run(DetectionEvaluator(name, tmp_path / "ours"), batches) == {}
    assert "no annotations" in caplog.text
    assert len(json.loads((tmp_path / "ours" / "coco_instances_results.json").read_text())) > 30


def test_masks_that_are_not_finite_are_counted(coco, tmp_path, caplog):
    batches = network_output(annotations())
    batches[0][1].pred_masks[:2, 0, 5] = float("nan")
    run(DetectionEvaluator(coco, tmp_path), batches)
    assert "2 masks have NaN or infinity" in caplog.text


def test_more_classes_than_the_dataset_has_is_an_error(coco, tmp_path):
    batches = network_output(annotations())
    batches[0][1].pred_classes[0] = 3
    with pytest.raises(UserError, match="class 3.* has 3 classes"):
        run(DetectionEvaluator(coco, tmp_path), batches)


def test_scores_that_are_not_finite_are_an_error(coco, tmp_path):
    batches = network_output(annotations())
    batches[2][1].scores[0] = float("nan")
    with pytest.raises(UserError, match="score"):
        run(DetectionEvaluator(coco, tmp_path), batches)


def test_an_image_of_another_dataset_is_an_error(coco, tmp_path):
    batches = network_output(annotations())
    batches[0][0]["image_id"] = 5
    with pytest.raises(UserError, match="image 5"):
        run(DetectionEvaluator(coco, tmp_path), batches)


def test_output_without_instances_is_an_error(coco, tmp_path):
    evaluator = DetectionEvaluator(coco, tmp_path)
    evaluator.reset()
    with pytest.raises(UserError, match="returned proposals"):
        evaluator.process([{"image_id": 100}], [{"proposals": None}])


def test_extra_limits_are_reported(coco, tmp_path):
    results = run(
        DetectionEvaluator(coco, tmp_path, extra_max_detections=(1, 10)),
        network_output(annotations()),
    )
    assert results["bbox"]["AP@1"] <= results["bbox"]["AP@10"] == results["bbox"]["AP"]


def test_totals_and_categories_are_logged(coco, tmp_path, caplog):
    caplog.set_level("INFO", logger="virtex_det")
    run(DetectionEvaluator(coco, tmp_path), network_output(annotations()))
    assert (
        "Per-category segm AP" in caplog.text and "thing 11" in caplog.text and "APs" in caplog.text
    )


def test_a_dataset_without_an_annotation_file_is_evaluated_by_its_dicts(coco, tmp_path):
    name = str(tmp_path / "dicts alone")
    content = annotations()
    batches = network_output(content)
    DatasetCatalog.register(name, lambda: dicts_of(content))
    MetadataCatalog.get(name).set(evaluator_type="coco", thing_classes=["a", "b", "c"])
    ours = run(DetectionEvaluator(name, tmp_path / "ours"), batches)
    theirs = run(DetectionEvaluator(coco, tmp_path / "theirs"), batches)
    # areas are those of boxes there
    assert ours["bbox"]["AP"] == pytest.approx(theirs["bbox"]["AP"], abs=0.5)
    assert ours["bbox"]["AP-b"] == pytest.approx(theirs["bbox"]["AP-thing 7"])


def test_categories_that_look_like_numbers_are_logged_by_their_names(tmp_path, caplog):
    name = str(tmp_path / "numbers")
    content = annotations()
    DatasetCatalog.register(name, lambda: dicts_of(content))
    MetadataCatalog.get(name).set(evaluator_type="coco", thing_classes=["007", "1e3", "nan"])
    caplog.set_level("INFO", logger="virtex_det")
    run(DetectionEvaluator(name, tmp_path), network_output(content))
    row = caplog.text.partition("Per-category bbox AP")[2].splitlines()[3]
    assert [cell.strip() for cell in row.split("|")][1::2][:3] == ["007", "1e3", "nan"]


def dicts_of(content: dict) -> list[dict]:
    from detectron2.structures import BoxMode

    return [
        {
            "file_name": "",
            "image_id": image["id"],
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [
                {
                    "bbox": entry["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": CATEGORY_IDS.index(entry["category_id"]),
                    "segmentation": entry["segmentation"],
                }
                for entry in content["annotations"]
                if entry["image_id"] == image["id"]
            ],
        }
        for image in content["images"]
    ]


def test_what_goes_over_the_network_does_not_grow_with_the_detections(coco, tmp_path, monkeypatch):
    gathered = []
    monkeypatch.setattr(
        comm, "gather", lambda data: gathered.append(len(pickle.dumps(data))) or [data]
    )
    batches = network_output(annotations())
    few = [(example, instances[:1]) for example, instances in batches]
    many = [(example, Instances.cat([instances] * 20)) for example, instances in batches]
    for part in (few, many):
        run(DetectionEvaluator(coco, tmp_path / "output"), part)
    assert abs(gathered[1] - gathered[0]) < 16 and max(gathered) < 2000


def _evaluate_share(folder: Path) -> None:
    """Give one of two processes an empty image and another one, and the other process the rest."""
    for style in ("coco", "lvis"):
        evaluator = DetectionEvaluator(
            register(folder / f"data of {comm.get_rank()}", style), folder / style
        )
        batches = network_output(annotations(style))
        results = run(evaluator, batches[:2] if comm.is_main_process() else batches[2:])
        if comm.is_main_process():
            (folder / f"two of {style}").write_text(json.dumps(results))
        else:
            assert results == {}


@pytest.mark.slow
def test_two_processes_find_exactly_what_one_does(tmp_path):
    launch_processes(_evaluate_share, tmp_path, processes=2)
    for style in ("coco", "lvis"):
        one = run(
            DetectionEvaluator(register(tmp_path, style), tmp_path / "one"),
            network_output(annotations(style)),
        )
        assert (tmp_path / f"two of {style}").read_text() == json.dumps(one)
        files = [
            (tmp_path / name / "coco_instances_results.json").read_text() for name in ("one", style)
        ]
        assert json.loads(files[0]) == json.loads(files[1])
        assert not (tmp_path / style / "unmerged").exists()
