"""COCO's and LVIS's own code for the same question, and annotations and detections to ask it
about.
"""

import contextlib
import copy
import io
import json
import math

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.reference import numpy_float_alias

COCO_NAMES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def coco_reference(content, entries, task, code=COCOeval):
    """The twelve numbers and AP by category of pycocotools, as Detectron2 calls it."""
    evaluation = run_coco(content, entries, task, (1, 10, 100), code)
    numbers = {
        name: _percent(value) for name, value in zip(COCO_NAMES, evaluation.stats, strict=True)
    }
    return numbers | _by_category(evaluation.eval["precision"][:, :, :, 0, -1], content)


def run_coco(content, entries, task, limits, code=COCOeval):
    """pycocotools after all its steps; its summary exists only with the usual limits."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluation = code(truth, truth.loadRes(_entries_for(task, entries)), task)
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        if limits == (1, 10, 100):
            evaluation.summarize()
    return evaluation


def lvis_reference(content, entries, task, folder, limit=300):
    """The thirteen numbers and AP by category of lvis-api, as Detectron2 calls it."""
    from lvis import LVIS, LVISEval, LVISResults

    path = folder / "lvis.json"
    path.write_text(json.dumps(content))
    with numpy_float_alias():
        truth = LVIS(str(path))
        evaluation = LVISEval(
            truth, LVISResults(truth, _entries_for(task, entries), max_dets=limit), task
        )
        evaluation.params.max_dets = limit
        evaluation.run()
    numbers = {name: _percent(value) for name, value in evaluation.get_results().items()}
    return numbers | _by_category(evaluation.eval["precision"][:, :, :, 0], content)


def _entries_for(task, entries):
    left_out = "bbox" if task == "segm" else "segmentation"
    return [
        {name: value for name, value in entry.items() if name != left_out}
        for entry in copy.deepcopy(entries)
    ]


def _by_category(precision, content):
    categories = sorted(content["categories"], key=lambda category: category["id"])
    tables = {
        f"AP-{category['name']}": precision[:, :, place]
        for place, category in enumerate(categories)
    }
    return {
        name: _percent(table[table > -1].mean()) if (table > -1).any() else math.nan
        for name, table in tables.items()
    }


def _percent(value):
    return 100 * float(value) if value > -1 else math.nan


def as_detections(entries):
    """Entries of a results file as columns."""
    if not entries:
        return Detections.empty()
    rles = [entry["segmentation"] for entry in entries] if "segmentation" in entries[0] else None
    ids = (
        np.array([entry[name] for entry in entries], np.int64)
        for name in ("image_id", "category_id")
    )
    scores = np.array([entry["score"] for entry in entries], np.float64)
    return Detections(
        *ids, scores, np.array([entry["bbox"] for entry in entries], np.float64), rles
    )


def ours(content, entries, task, style="coco", shown=None, **options):
    """Our numbers, of detections that come a few images at a time."""
    metric = AveragePrecision(GroundTruth(copy.deepcopy(content), style), task, **options)
    detections = as_detections(entries)
    image_ids = [image["id"] for image in content["images"]] if shown is None else shown
    for start in range(0, len(image_ids), 3):
        batch = image_ids[start : start + 3]
        part = detections.take(np.isin(detections.image_ids, batch))
        metric.update(batch, part if len(part.scores) else Detections.empty())
    return metric.result()


def assert_equal_numbers(found, expected, tolerance=1e-9):
    assert set(expected) <= set(found)
    for name, value in expected.items():
        assert (
            math.isclose(found[name], value, abs_tol=tolerance)
            or math.isnan(found[name])
            and math.isnan(value)
        ), (
            name,
            found[name],
            value,
        )


def encode(mask):
    """A mask in the form of a results file."""
    rle = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def jitter(content, seed, *, per_object=3, shift=12):
    """Detections near the objects of an annotation file: masks and their boxes moved, some
    doubled, some wrong.
    """
    random = np.random.default_rng(seed)
    truth = COCO()
    truth.dataset = {**copy.deepcopy(content), "info": {}}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    categories = [category["id"] for category in content["categories"]]
    entries = []
    for annotation in truth.dataset["annotations"]:
        mask = truth.annToMask(annotation)
        reach = min(shift, 1 + min(mask.shape) // 24)
        for _ in range(random.integers(0, per_object + 1)):
            moved = np.roll(
                mask, random.integers(-reach, reach + 1, 2) // random.integers(1, 5), (0, 1)
            )
            if moved.any():
                entries.append(
                    {
                        "image_id": annotation["image_id"],
                        "category_id": int(
                            random.choice([annotation["category_id"]] * 9 + categories[:1])
                        ),
                        "segmentation": encode(moved),
                        "bbox": mask_tools.toBbox(
                            mask_tools.encode(np.asfortranarray(moved))
                        ).tolist(),
                        # Few levels, so that many are equal.
                        "score": float(random.integers(1, 40)) / 40,
                    }
                )
    return entries


def random_content(seed, *, style="coco", images=8, categories=4, objects=12, size=48):
    """Annotations of random rectangles: crowds, objects without area, images without objects,
    unordered ids.
    """
    random = np.random.default_rng(seed)
    image_ids = random.permutation(np.arange(1, 10 * images))[:images].tolist()
    category_ids = random.permutation(np.arange(0, 3 * categories))[:categories].tolist()
    annotations = []
    for place in range(images * objects):
        height, width = random.integers(1, size // 2, 2)
        top, left = random.integers(0, size // 2, 2)
        mask = np.zeros((size, size), np.uint8)
        mask[top : top + height, left : left + width] = 1
        annotation = {
            "id": int(place + 1),
            "image_id": int(random.choice(image_ids[: max(1, images - 2)])),
            "category_id": int(random.choice(category_ids[: max(1, categories - 1)])),
            "bbox": [float(left), float(top), float(width), float(height)],
            "area": float(height * width) if place % 11 else 0.0,
            "segmentation": encode(mask),
        }
        if style == "coco":
            annotation |= {"iscrowd": int(place % 9 == 0), "ignore": int(place % 7 == 0)}
        annotations.append(annotation)
    content = {
        "images": [{"id": image_id, "height": size, "width": size} for image_id in image_ids],
        "annotations": annotations,
        "categories": [
            {"id": category_id, "name": f"class {category_id}"} for category_id in category_ids
        ],
    }
    if style == "lvis":
        for image in content["images"]:
            image["neg_category_ids"] = random.permutation(category_ids)[:1].tolist()
            image["not_exhaustive_category_ids"] = random.permutation(category_ids)[:1].tolist()
        for category in content["categories"]:
            category["frequency"] = str(random.choice(["r", "c", "f"]))
    return content
