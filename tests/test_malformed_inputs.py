"""Hundreds of damaged inputs: each is refused on one screen, or read like the undamaged input.

No damage ends in a traceback, hangs, changes a number, or leaves half a file.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from tests.mutations import damaged_bytes, judge, mutations
from virtex_det import get_cfg
from virtex_det.benchmark.records import read_records
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.datasets.captions import load_coco_captions
from virtex_det.data.datasets.image_folders import load_inaturalist
from virtex_det.data.datasets.narratives import load_narratives
from virtex_det.data.datasets.pairs import load_pairs
from virtex_det.data.datasets.split_files import Subset, make_manifest, take_split
from virtex_det.data.training_set import load_train_dicts
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.results_file import evaluate_file
from virtex_det.evaluation.detection.voc import VOCGroundTruth
from virtex_det.experiments.matrix_file import read_matrix

SIDE = 40
SQUARE = [4, 4, 24, 4, 24, 24, 4, 24]
TEXT = "word|empty|digits|padded|full-width|underscored"
# Changes that leave a file valid, but with other objects.
NUMBERS = r"(bbox\.0|segmentation\.0\.0|area|score)-(fraction|negative|zero|huge)"
OTHER_OBJECTS = (
    r"annotations\.0-removed|"
    rf"annotations\.0\.(iscrowd-(true|removed)|segmentation-repeated|{NUMBERS})"
)
MASK = {"size": [SIDE, SIDE], "counts": "T5d0d00000000000000000000000000000000000000lc0"}


def instances(style: str = "coco") -> dict[str, Any]:
    """Two images with an object each, of two categories, in the style of COCO or LVIS."""
    of_lvis = (
        {"neg_category_ids": [], "not_exhaustive_category_ids": [1]} if style == "lvis" else {}
    )
    images = [
        {"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE, **of_lvis}
        for number in (1, 2)
    ]
    annotations = [
        {
            "id": number,
            "image_id": number,
            "category_id": number,
            "bbox": [4, 4, 20, 20],
            "area": 400,
            "iscrowd": 0,
            "segmentation": [SQUARE],
        }
        for number in (1, 2)
    ]
    categories = [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}]
    if style == "lvis":
        categories = [
            {**category, "frequency": "f", "synonyms": [category["name"]]}
            for category in categories
        ]
    return {"images": images, "annotations": annotations, "categories": categories}


RESULTS = [
    {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.9, "segmentation": MASK},
    {"image_id": 2, "category_id": 2, "bbox": [4, 4, 20, 20], "score": 0.8, "segmentation": MASK},
    {"image_id": 2, "category_id": 1, "bbox": [30, 30, 5, 5], "score": 0.95, "segmentation": MASK},
]
CAPTIONS = {
    "images": [
        {"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}
        for number in (1, 2)
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "a nut"},
        {"id": 2, "image_id": 1, "caption": "one nut"},
        {"id": 3, "image_id": 2, "caption": "a bolt"},
    ],
}
NARRATIVE = {
    "dataset_id": "own",
    "image_id": "1",
    "annotator_id": 1,
    "caption": "a nut",
    "timed_caption": [
        {"utterance": "a", "start_time": 0.0, "end_time": 0.25},
        {"utterance": "nut", "start_time": 0.25, "end_time": 0.75},
    ],
    "traces": [[{"x": 0.5, "y": 0.25, "t": 0.25}, {"x": 0.75, "y": 0.5, "t": 0.5}]],
    "voice_recording": "",
}
PAIR = {"image": "1.png", "captions": ["a nut", "one nut"]}
MATRIX = {
    "title": "Two starts",
    "output": "runs",
    "protocols": {"scenes-segm": "configs/detectron2/scenes_segm.yaml"},
    "baseline": "random init",
    "starts": {
        "random init": "",
        "captions": {
            "pretrain": "configs/pretrain/scenes_bicaptioning.yaml",
            "seed": 1,
            "options": {"SOLVER.MAX_ITER": 20},
        },
    },
    "fractions": [0.25, 1.0],
    "seeds": [0, 3],
    "options": {"SOLVER.BASE_LR": 0.002},
}


def cases(
    document: Any, *, valid: str = "", dump: Callable[[Any], str] = json.dumps, **options: int
) -> list[Any]:
    """Make test parameters of every damage that does not leave a document ``valid`` (a pattern)."""
    changed = [
        pytest.param(dump(mutated).encode(), id=name)
        for name, mutated in mutations(document, **options)
        if not re.fullmatch(valid, name)
    ]
    return changed + [
        pytest.param(content, id=f"file-{name}")
        for name, content in damaged_bytes(dump(document).encode())
        if not re.fullmatch(valid, f"file-{name}")
    ]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    """Tells whether a warning was logged."""
    return lambda: any(record.levelno >= logging.WARNING for record in caplog.records)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2):
        Image.new("RGB", (SIDE, SIDE), (9 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def numbers(annotations: Path, detections: Path, style: str) -> dict[str, Any]:
    truth = GroundTruth.read(annotations, style)
    results = evaluate_file(truth, detections)
    return {
        task: {name: repr(value) for name, value in found.items()}
        for task, found in results.items()
    }


def judge_evaluation(
    tmp_path: Path,
    style: str,
    annotations: bytes,
    detections: bytes,
    damaged: str,
    said: Callable[[], bool],
) -> None:
    """Measure damaged files against the numbers of the undamaged ones."""
    good = {"annotations": json.dumps(instances(style)), "detections": json.dumps(RESULTS)}
    for name, text in good.items():
        (tmp_path / f"good_{name}.json").write_text(text)
    (tmp_path / "annotations.json").write_bytes(annotations)
    (tmp_path / "detections.json").write_bytes(detections)
    expected = numbers(tmp_path / "good_annotations.json", tmp_path / "good_detections.json", style)
    assert float(expected["bbox"]["AP"]) < 100  # so that a detection more or less is seen
    judge(
        lambda: numbers(tmp_path / "annotations.json", tmp_path / "detections.json", style),
        expected,
        names=(f"{damaged}.json",),
        said=said,
    )


@pytest.mark.parametrize("content", cases(instances(), valid=OTHER_OBJECTS))
def test_damaged_coco_annotations_are_refused_or_measured_right(content, tmp_path, said):
    judge_evaluation(tmp_path, "coco", content, json.dumps(RESULTS).encode(), "annotations", said)


@pytest.mark.parametrize("content", cases(instances("lvis"), valid=OTHER_OBJECTS))
def test_damaged_lvis_annotations_are_refused_or_measured_right(content, tmp_path, said):
    judge_evaluation(tmp_path, "lvis", content, json.dumps(RESULTS).encode(), "annotations", said)


@pytest.mark.parametrize(
    "content", cases(RESULTS, valid=rf"0-removed|file-list|0\.({NUMBERS})|0.segmentation-removed")
)
def test_damaged_results_are_refused_or_measured_right(content, tmp_path, said):
    judge_evaluation(
        tmp_path, "coco", json.dumps(instances()).encode(), content, "detections", said
    )


@pytest.fixture
def load_instances() -> Iterator[Callable[[Path, Path], Any]]:
    """Loads the training set that an annotation file makes, registered as users register theirs."""
    name = "malformed_train"

    def load(annotations: Path, images: Path) -> Any:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)
        register_coco_instances(name, {}, str(annotations), str(images))
        cfg = get_cfg()
        cfg.merge_from_list(
            ["DATASETS.TRAIN", (name,), "MODEL.MASK_ON", True, "MODEL.ROI_HEADS.NUM_CLASSES", 2]
        )
        return load_train_dicts(cfg)

    yield load
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)


@pytest.mark.parametrize("content", cases(instances(), valid=OTHER_OBJECTS))
def test_damaged_training_annotations_are_refused_or_trained_on_as_they_were(
    content, tmp_path, images, load_instances, said, caplog
):
    good, damaged = tmp_path / "good.json", tmp_path / "damaged.json"
    good.write_text(json.dumps(instances()))
    damaged.write_bytes(content)
    expected = load_instances(good, images)
    caplog.clear()
    judge(
        lambda: load_instances(damaged, images),
        expected,
        names=("damaged", "malformed_train"),
        said=said,
    )


@pytest.mark.parametrize(
    "content",
    cases(
        CAPTIONS,
        valid=r"annotations\.0-removed|images\.0\.((height|width)-removed|file_name-half-a-character)",
    ),
)
def test_damaged_captions_are_refused_or_read_as_they_were(content, tmp_path, images):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(CAPTIONS))
    expected = load_coco_captions(path, images)
    path.write_bytes(content)
    judge(lambda: load_coco_captions(path, images), expected, names=("captions.json",))


def plain(value: Any) -> Any:
    """Return arrays as lists, so that they can be compared."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


# Points may lie outside of the image, and a file without a line is a shard without a narrative.
ODD = "(negative|zero|huge)"
OTHER_NARRATIVES = (
    rf"traces\.0\.[01](-removed|\.[xyt]-{ODD})|timed_caption\.[01]\.(start|end)_time-{ODD}"
    r"|timed_caption\.[01]\.utterance-.*|file-empty"
)


@pytest.mark.parametrize("content", cases(NARRATIVE, places_of_list=2, valid=OTHER_NARRATIVES))
def test_damaged_narratives_are_refused_or_read_as_they_were(
    content, tmp_path, images, said, caplog
):
    path = tmp_path / "narratives.jsonl"
    path.write_text(json.dumps(NARRATIVE))
    expected = plain(load_narratives(path, images))
    path.write_bytes(content)
    caplog.clear()
    judge(
        lambda: plain(load_narratives(path, images)),
        expected,
        names=("narratives.jsonl",),
        said=said,
    )


# One caption may stand without a list; that no file has such a name, the look at the files says.
OTHER_PAIRS = rf"captions-(repeated|{TEXT})|captions\.0-removed|image-half-a-character"


@pytest.mark.parametrize("content", cases(PAIR, valid=OTHER_PAIRS))
def test_damaged_pairs_are_refused_or_read_as_they_were(content, tmp_path, images):
    path = images / "pairs.jsonl"
    path.write_text(json.dumps(PAIR))
    expected = load_pairs(path)
    path.write_bytes(content)
    judge(lambda: load_pairs(path), expected, names=("pairs.jsonl",))


def planned(path: Path) -> Any:
    """Return the matrix of a file and the runs that it plans."""
    matrix = read_matrix(path)
    return matrix, [run.arguments() for run in matrix.cells.values()]


OTHER_RUNS = (
    r"(baseline|options|options\.SOLVER\.BASE_LR)-(removed|null)|starts\.captions\.(seed|options)-(removed|null)"
    r"|(options|starts\.captions\.options)\.SOLVER\.[A-Z_]+-removed|options\.SOLVER\.BASE_LR-fraction"
    r"|file-cut-at-the-end|(fractions|seeds)\.0-removed|starts\.[a-z ]+-removed"
    rf"|starts\.(random init|captions)-({TEXT})"
    rf"|(starts\.captions\.)?options\.SOLVER\.[A-Z_]+-({TEXT}|zero|huge)"
)


@pytest.mark.parametrize("content", cases(MATRIX, dump=yaml.safe_dump, valid=OTHER_RUNS))
def test_damaged_matrices_are_refused_or_read_as_they_were(content, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(MATRIX))
    expected = planned(path)
    path.write_bytes(content)
    judge(lambda: planned(path), expected, names=("matrix.yaml", "SOLVER."))


@pytest.mark.parametrize("content", [*cases({"x": 1})])
def test_damaged_records_are_refused(content, tmp_path):

    (tmp_path / "results.jsonl").write_bytes(content)
    judge(lambda: read_records(tmp_path), [], names=("results.jsonl",))


SPECIES = {
    "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)],
    "categories": [{"id": 5, "name": "oak"}, {"id": 7, "name": "elm"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5},
        {"id": 2, "image_id": 2, "category_id": 7},
    ],
}


@pytest.mark.parametrize("content", cases(SPECIES, valid=r"annotations\.0-removed"))
def test_damaged_species_are_refused_or_read_as_they_were(content, tmp_path):
    def read():
        MetadataCatalog.pop("malformed_species", None)
        dicts = load_inaturalist("malformed_species", path, tmp_path)
        return dicts, MetadataCatalog.pop("malformed_species").classes

    path = tmp_path / "species.json"
    path.write_text(json.dumps(SPECIES))
    expected = read()
    path.write_bytes(content)
    judge(read, expected, names=("species.json",))


HALF = Subset(0.5, 0, False)
_HALF = make_manifest({"own": [{"image_id": number} for number in range(5)]}, HALF)
SPLITS = {
    "manifest": {**HALF._asdict(), "sha256": _HALF.sha256, "ids": _HALF.ids},
    "index": {"50.0": {"0": [0, 1, 2, 3, 4]}, "10.0": {"0": [1]}},
    "list": [0, 1, 2, 3, 4],
}
# One image less is still a half, to within rounding.
OTHER_IMAGES = "0-removed"


@pytest.mark.parametrize("kind", SPLITS)
def test_damaged_split_files_are_refused_or_read_as_they_were(kind, tmp_path):
    def read():
        dicts = [
            {"image_id": number, "annotations": [{"category_id": 0, "iscrowd": 0}]}
            for number in range(10)
        ]
        return take_split(path, {"own": dicts}, HALF)

    path = tmp_path / "split.json"
    path.write_text(json.dumps(SPLITS[kind]))
    expected = read()
    for case in cases(SPLITS[kind], valid=OTHER_IMAGES):
        path.write_bytes(*case.values)
        judge(read, expected, names=("split.json",))


WRITTEN = {
    "concepts": (
        ConceptSet(
            "ab", ("noun", "verb"), (Concept("nut", "noun", 3, 5), Concept("bolt", "noun", 2, 6))
        ),
        # repeated concepts are found with the tokenizer
        r"concepts-repeated|concepts\.0-removed|parts_of_speech\.0-removed",
    ),
    "clusters": (
        CaptionClusters(2, 0, "tf-idf", {"a nut": 0, "a bolt": 1}),
        r"clusters\.a (nut|bolt)-removed",
    ),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_damaged_files_of_words_are_refused_or_read_as_they_were(kind, tmp_path):
    written, valid = WRITTEN[kind]
    path = tmp_path / f"{kind}.json"
    written.write(path)
    for case in cases(json.loads(path.read_text()), valid=valid):
        path.write_bytes(*case.values)
        judge(lambda: type(written).read(path), written, names=(path.name,))


BOX = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>"
XML = (
    "<annotation><size><width>40</width><height>30</height></size>"
    f"<object><name>nut</name><difficult>0</difficult>{BOX}</object></annotation>"
)
IN_PLACE_OF_TEXT = (
    "",
    "x",
    "１",
    "1_0",
    "nan",
    "inf",
    "-7",
    "1e30",
    "0x10",
    "1,5",
    "1 2",
    "<b>3</b>",
    "\x00",
    "&lt;",
)


def damaged_xml() -> list[Any]:
    """Make test parameters of an XML file with each element removed, renamed, nested or changed."""
    changed = {}
    for element, tag, _ in re.findall(r"(<(\w+)>([^<]+)</\2>)", XML):
        changed[f"{tag}-removed"] = XML.replace(element, "")
        changed[f"{tag}-in-capitals"] = XML.replace(f"{tag}>", f"{tag.upper()}>")
        changed |= {
            f"{tag}-{wrong}": XML.replace(element, f"<{tag}>{wrong}</{tag}>")
            for wrong in IN_PLACE_OF_TEXT
        }
    for tag in ("size", "object", "bndbox", "annotation"):
        changed[f"{tag}-in-capitals"] = XML.replace(f"{tag}>", f"{tag.upper()}>")
        changed[f"{tag}-deeper"] = XML.replace(f"<{tag}>", f"<a><{tag}>").replace(
            f"</{tag}>", f"</{tag}></a>"
        )
    for name, content in damaged_bytes(XML.encode()):
        changed[f"file-{name}"] = content
    return [pytest.param(content, id=ascii(name)) for name, content in changed.items()]


@pytest.mark.parametrize("content", damaged_xml())
def test_damaged_voc_annotations_are_refused_or_measured_right(content, tmp_path, said):
    def read():
        return plain(
            {name: tuple(found) for name, found in VOCGroundTruth.read(*place).images.items()}
        )

    place = (tmp_path, "test", ("bolt", "nut"), 2007)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("one\n")
    path = tmp_path / "Annotations" / "one.xml"
    path.parent.mkdir()
    path.write_text(XML)
    expected = read()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    judge(read, expected, names=("one.xml",), said=said)
