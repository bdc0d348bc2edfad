"""Registers datasets with a standard layout below $DETECTRON2_DATASETS."""

import os
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    get_lvis_instances_meta,
    load_lvis_json,
    register_coco_instances,
    register_lvis_instances,
    register_pascal_voc,
)

from virtex_det.data.datasets.captions import register_coco_captions
from virtex_det.data.datasets.image_folders import register_image_folders, register_inaturalist
from virtex_det.data.datasets.narratives import register_narratives
from virtex_det.data.datasets.object_words import register_object_words
from virtex_det.data.datasets.regions import register_regions
from virtex_det.data.datasets.scenes import FOLDERS, SHAPE_WORDS, SHAPES, SPLITS

_GENERATE = "python tools/generate_scenes.py"


def datasets_root() -> Path:
    """Return $DETECTRON2_DATASETS, by default "datasets", as Detectron2 does."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_builtin_datasets(root: str | Path) -> None:
    """Register the datasets of one folder; earlier registrations of the same names are replaced.

    Nothing is read. COCO, LVIS and VOC themselves are registered by Detectron2, which has no
    captions.

    Args:
        root: folder with coco/, lvis/, scenes/ and so on.
    """
    root = Path(root)
    for vocabulary, folder in FOLDERS.items():
        _register_scenes(root / folder, vocabulary)
    _register_coco_captions(root / "coco", "coco_2017")
    _register_narratives(root)
    _register_coco_mini(root / "coco_mini")
    _register_voc_mini(root / "voc_mini" / "VOC2007")
    _register_lvis_sample(root / "lvis_100")
    _register_lvis_v1_by_its_other_name(root)
    _register_classification(root)


def standard_names() -> set[str]:
    """Return all registered names, also Detectron2's, whose files are below the datasets' root."""
    root = datasets_root().absolute()
    files = {
        name: metadata.get("json_file")
        or metadata.get("image_root")
        or metadata.get("dirname")
        or ""
        for name in DatasetCatalog.list()
        for metadata in [MetadataCatalog.get(name)]
    }
    return {name for name, file in files.items() if file and root in Path(file).absolute().parents}


def _forget(name: str) -> str:
    """Drop an earlier registration of that name, if any, and return the name."""
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    return name


def _register_scenes(folder: Path, vocabulary: str) -> None:
    """Register the scenes of a vocabulary: names begin with the folder's, as in scenes_train."""
    generate = _GENERATE if vocabulary == "names" else f"{_GENERATE} --vocabulary {vocabulary}"
    for split in SPLITS:
        captions = folder / "annotations" / f"captions_{split}.json"
        register_coco_captions(
            _forget(f"{folder.name}_{split}_captions"), captions, folder / split, made_by=generate
        )
    for split in ("train", "val"):
        instances = folder / "annotations" / f"instances_{split}.json"
        register_coco_instances(
            _forget(f"{folder.name}_{split}"),
            {"thing_classes": list(SHAPES), "made_by": generate},
            str(instances),
            str(folder / split),
        )
        captions = folder / "annotations" / f"captions_{split}.json"
        name = _forget(f"{folder.name}_{split}_regions")
        register_regions(name, captions, instances, folder / split, made_by=generate)
    _register_narrated_scenes(folder, generate)


def _register_narrated_scenes(folder: Path, generate: str) -> None:
    again = (
        f"{generate} (add --overwrite to scenes of an earlier version, which have no narratives)"
    )
    for split in SPLITS:
        annotations = folder / "annotations"
        objects: dict[str, Any] = (
            {}
            if split == "unlabelled"
            else {"instances_json": str(annotations / f"instances_{split}.json")}
        )
        name, drawn = (
            _forget(f"{folder.name}_{split}_narratives"),
            annotations / f"narratives_{split}.jsonl",
        )
        register_narratives(name, drawn, folder / split, made_by=again, **objects)
        if objects:
            register_object_words(
                _forget(f"{folder.name}_{split}_words"),
                drawn,
                folder / split,
                SHAPE_WORDS,
                made_by=again,
                **objects,
            )


def _register_coco_captions(folder: Path, prefix: str) -> None:
    for split in ("train", "val"):
        captions = folder / "annotations" / f"captions_{split}2017.json"
        register_coco_captions(
            _forget(f"{prefix}_{split}_captions"), captions, folder / f"{split}2017"
        )
        boxes = folder / "annotations" / f"instances_{split}2017.json"
        name = _forget(f"{prefix}_{split}_regions")
        register_regions(name, captions, boxes, folder / f"{split}2017")


def _register_narratives(root: Path) -> None:
    files = {
        "train": "coco_train_localized_narratives-*-of-*.jsonl",
        "val": "coco_val_localized_narratives.jsonl",
    }
    for split, file in files.items():
        path = root / "localized_narratives" / file
        register_narratives(
            _forget(f"coco_2017_{split}_narratives"), path, root / "coco" / f"{split}2017"
        )


def _register_coco_mini(folder: Path) -> None:
    _register_coco_captions(folder, "coco_mini")
    classes = {"thing_classes": MetadataCatalog.get("coco_2017_val").thing_classes}
    for split in ("train", "val"):
        instances = folder / "annotations" / f"instances_{split}2017.json"
        register_coco_instances(
            _forget(f"coco_mini_{split}"), classes, str(instances), str(folder / f"{split}2017")
        )


def _register_voc_mini(folder: Path) -> None:
    for split in ("trainval", "test"):
        name = _forget(f"voc_mini_{split}")
        register_pascal_voc(name, str(folder), split, 2007)
        MetadataCatalog.get(name).set(evaluator_type="pascal_voc")


def _register_lvis_sample(folder: Path) -> None:
    name = _forget("lvis_100_val")
    json_file = str(folder / "annotations" / "lvis_val_9_with_images.json")
    # Detectron2 appends the folder of the split ("val2017") without a slash.
    image_root = f"{folder}/"
    # Without a dataset name, in which Detectron2 would look for an LVIS release. Ids still start at
    # 0.
    DatasetCatalog.register(name, lambda: load_lvis_json(json_file, image_root))
    metadata = get_lvis_instances_meta("lvis_v0.5")
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="lvis", **metadata
    )


def _register_lvis_v1_by_its_other_name(root: Path) -> None:
    """Register lvis_v1.0_*.json as LVIS v1 where Detectron2's lvis_v1_*.json does not exist."""
    for split in ("train", "val"):
        usual, other = (
            root / "lvis" / f"lvis_v1_{split}.json",
            root / "lvis" / f"lvis_v1.0_{split}.json",
        )
        if other.exists() and not usual.exists():
            metadata = get_lvis_instances_meta("lvis_v1")
            register_lvis_instances(
                _forget(f"lvis_v1_{split}"), metadata, str(other), f"{root}/coco/"
            )


def _register_classification(root: Path) -> None:
    for split in ("train", "val"):
        register_image_folders(_forget(f"imagenet_{split}"), root / "imagenet" / split)
        json_file = root / "inat2018" / f"{split}2018.json"
        register_inaturalist(_forget(f"inaturalist_2018_{split}"), json_file, root / "inat2018")
