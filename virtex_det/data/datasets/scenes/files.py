"""Writes captioned scenes in COCO's format, and narrations in that of Localized Narratives."""

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from virtex_det.data.datasets.scenes.drawing import SPLITS, Scene, check_scene_arguments, draw_scene
from virtex_det.data.datasets.scenes.narration import SIDE, Narration, Word, narrate
from virtex_det.data.datasets.scenes.shapes import SHAPES
from virtex_det.errors import UserError
from virtex_det.signals import serve_parent, signals_held
from virtex_det.text_files import read_json
from virtex_det.utils import sweep, unfinished_name

logger = logging.getLogger(__name__)

SETTINGS_FILE = "scenes.json"
# Increase it whenever the same settings give other pixels, masks, words or files.
GENERATOR_VERSION = 5
# The version since which images, boxes and masks are the same. Files of instances have this one, so
# that results of detectors stay comparable when only captions change.
IMAGES_VERSION = 3

# The folder below $DETECTRON2_DATASETS of the scenes with each vocabulary; names of data sets begin
# with it.
FOLDERS = {"names": "scenes", "synonyms": "scenes_synonyms"}

# Only labelled splits have instances.
_LABELLED = ("train", "val")
_CAPTIONED = (("captions", ".json"), ("narratives", ".jsonl"))
_FILES = {
    split: (("instances", ".json"), *_CAPTIONED) if split in _LABELLED else _CAPTIONED
    for split in SPLITS
}
_CHUNK = 50
# Ids of the splits are this far apart, so that no two images share one.
_MAX_IMAGES = 10_000_000
# Lossless and fast: matching gains little in a noisy image.
_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
)


class _Chunk(NamedTuple):
    """A run of scenes for one worker to write."""

    folder: Path
    split: str
    start: int
    stop: int
    seed: int
    image_size: int
    captions_per_image: int
    vocabulary: str


class _Narrative(NamedTuple):
    """A line of narratives without its last key, already as text: there are many points."""

    line: str
    grounding: list[int | None]  # index of each word's instance in the chunk's annotations


class _Records(NamedTuple):
    """The file entries of some scenes; annotations and captions get their ids at the end."""

    split: str
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    captions: list[dict[str, Any]]
    narratives: list[_Narrative]


def generate_scenes(
    root: str | Path,
    *,
    num_train: int = 300,
    num_val: int = 200,
    num_unlabelled: int = 3000,
    image_size: int = 96,
    captions_per_image: int = 5,
    vocabulary: str = "names",
    seed: int = 0,
    num_workers: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a dataset of captioned and narrated scenes; keep one with the same settings.

    The folder appears only when complete; until then everything is in a temporary one beside it.

    Args:
        root: folder to write, e.g. "datasets/scenes".
        num_train: labelled and captioned images to train on.
        num_val: labelled and captioned images to evaluate on.
        num_unlabelled: images with captions only, to pretrain on.
        image_size: side of the square images in pixels.
        captions_per_image: captions per image.
        vocabulary: what captions call the shapes, "names" or "synonyms", as in ``draw_scene``.
        seed: random seed; the splits of a seed have different streams.
        num_workers: processes; None for one per core, 0 or 1 for this one. The result is the same.
        overwrite: replace scenes with other settings.

    Returns:
        The folder.

    Raises:
        UserError: a setting is out of range, or the folder has other content or cannot be written.
    """
    root = Path(root)
    counts = {"train": num_train, "val": num_val, "unlabelled": num_unlabelled}
    settings = {
        "generator_version": GENERATOR_VERSION,
        "num_images": counts,
        "image_size": image_size,
        "captions_per_image": captions_per_image,
        "vocabulary": vocabulary,
        "seed": seed,
    }
    _check_counts(counts)
    if num_workers is not None and num_workers < 0:
        raise UserError(f"num_workers is {num_workers}; expected 0 or more processes.")
    check_scene_arguments(seed, "train", image_size, captions_per_image, vocabulary)
    if _is_kept(root, settings, overwrite):
        logger.info("%s already holds these scenes: kept", root)
        return root
    try:
        _replace_with_new(root, settings, num_workers)
    except OSError as error:
        raise UserError(
            f"cannot write scenes to {root}: {error}; check free space and permissions"
        ) from error
    logger.info("wrote %d scenes to %s", sum(counts.values()), root)
    return root


def _replace_with_new(root: Path, settings: dict[str, Any], num_workers: int | None) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with _folder_beside(root) as temporary:
        folder = temporary / "new"
        _write_all(folder, settings, num_workers)
        if root.exists():
            root.replace(temporary / "old")
        folder.replace(root)


@contextmanager
def _folder_beside(root: Path) -> Iterator[Path]:
    """Yield a temporary folder for the block; remove those of killed generators, too."""
    sweep(root.parent, root.name)
    temporary = unfinished_name(root)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_counts(counts: dict[str, int]) -> None:
    for split, count in counts.items():
        if not 0 <= count <= _MAX_IMAGES:
            raise UserError(f"the number of {split} images is {count}; expected 0 to {_MAX_IMAGES}")


def _is_kept(root: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Return whether the folder already has these scenes; raise if it must not be replaced."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = read_json(root / SETTINGS_FILE)
    except UserError:
        raise UserError(
            f"{root} exists but is not a complete set of scenes (no readable {SETTINGS_FILE}).\n"
            "Nothing was changed. Choose another folder, or remove this one yourself."
        ) from None
    if found == settings:
        missing = _missing_file(root, settings)
        if missing and not overwrite:
            raise UserError(
                f"{root} has these scenes, but {missing} is missing.\n"
                "Choose another folder, or write them again (--overwrite)."
            )
        return not missing
    if not overwrite:
        raise UserError(
            f"{root} has scenes with other settings.\n"
            f"  found:    {json.dumps(found)}\n"
            f"  expected: {json.dumps(settings)}\n"
            "Choose another folder, or replace them (--overwrite)."
        )
    return False


def _missing_file(root: Path, settings: dict[str, Any]) -> str:
    """Return the first file of a set of scenes that is not there; "" if all are."""
    names = [f"annotations/{name}_{split}{end}" for split in SPLITS for name, end in _FILES[split]]
    for split in SPLITS:
        names += [f"{split}/{_image_name(index)}" for index in range(settings["num_images"][split])]
    return next((name for name in names if not (root / name).is_file()), "")


def _image_name(index: int) -> str:
    return f"{index:06d}.png"


def _write_all(folder: Path, settings: dict[str, Any], num_workers: int | None) -> None:
    """Draw and write every split, then the annotation files, and the settings last."""
    chunks = []
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        count = settings["num_images"][split]
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            keys = ("seed", "image_size", "captions_per_image", "vocabulary")
            chunks.append(_Chunk(folder, split, start, stop, *(settings[key] for key in keys)))
    records = _run(chunks, num_workers)
    (folder / "annotations").mkdir()
    for split in SPLITS:
        _write_annotations(folder, split, [part for part in records if part.split == split])
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def _run(chunks: list[_Chunk], num_workers: int | None) -> list[_Records]:
    """Write the chunks in one or several processes; return their records in order."""
    workers = min(os.cpu_count() or 1 if num_workers is None else num_workers, len(chunks))
    results: dict[int, _Records] = {}
    total = sum(chunk.stop - chunk.start for chunk in chunks)
    with (
        tqdm(total=total, desc="scenes", unit="image") as progress,
        closing(_completed(chunks, workers)) as completed,
    ):
        for number, records in completed:
            results[number] = records
            progress.update(len(records.images))
    return [results[number] for number in range(len(chunks))]


def _completed(chunks: list[_Chunk], workers: int) -> Generator[tuple[int, _Records], None, None]:
    """Yield the number and the records of each finished chunk."""
    if workers <= 1:
        yield from ((number, _write_chunk(chunk)) for number, chunk in enumerate(chunks))
        return
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, initializer=serve_parent, initargs=(os.getpid(),))
    with signals_held() as stop_if_asked, pool:
        try:
            numbers = {
                pool.submit(_write_chunk_apart, chunk): number
                for number, chunk in enumerate(chunks)
            }
            waiting = set(numbers)
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                stop_if_asked()
                for future in done:
                    future.result()
                    yield numbers[future], _take_records(chunks[numbers[future]])
        except BaseException as error:
            for worker in set(multiprocessing.active_children()).difference(others):
                worker.kill()  # the rest must not be drawn first
            if isinstance(error, BrokenProcessPool):
                raise _worker_was_ended() from error
            raise


def _worker_was_ended() -> UserError:
    return UserError(
        "A process that draws scenes was killed, probably because the memory was full (see "
        "`dmesg`).\n"
        "Nothing was changed. Generate again with fewer processes (--workers)."
    )


def _write_chunk_apart(chunk: _Chunk) -> None:
    """Write a chunk, and its records to a file.

    The pool's pipe would send them in pieces, and wait for ever if the worker is killed in between.
    """
    _records_file(chunk).write_text(json.dumps(_write_chunk(chunk)))


def _take_records(chunk: _Chunk) -> _Records:
    """Return the records that another process wrote, and delete their file."""
    split, images, annotations, captions, narratives = json.loads(_records_file(chunk).read_text())
    _records_file(chunk).unlink()
    return _Records(
        split, images, annotations, captions, [_Narrative(*narrative) for narrative in narratives]
    )


def _records_file(chunk: _Chunk) -> Path:
    return chunk.folder / f"{chunk.split}-{chunk.start}.json"


def _write_chunk(chunk: _Chunk) -> _Records:
    """Draw the scenes of a chunk and write their images."""
    records = _Records(chunk.split, [], [], [], [])
    first_id = SPLITS.index(chunk.split) * _MAX_IMAGES + 1
    for index in range(chunk.start, chunk.stop):
        scene = draw_scene(
            chunk.seed,
            chunk.split,
            index,
            chunk.image_size,
            chunk.captions_per_image,
            chunk.vocabulary,
        )
        image_id, file_name = first_id + index, _image_name(index)
        _, encoded = cv2.imencode(".png", scene.image[:, :, ::-1], _PNG)
        (chunk.folder / chunk.split / file_name).write_bytes(encoded.tobytes())
        size = chunk.image_size
        records.images.append(
            {"id": image_id, "file_name": file_name, "height": size, "width": size}
        )
        narrations = narrate(scene, chunk.seed, chunk.split, index)
        records.narratives.extend(
            _narratives(narrations, chunk.split, index, len(records.annotations))
        )
        records.annotations.extend(_annotations(scene, image_id))
        records.captions.extend(
            {"image_id": image_id, "caption": caption} for caption in scene.captions
        )
    return records


def _narratives(
    narrations: tuple[Narration, ...], split: str, index: int, first_annotation: int
) -> Iterator[_Narrative]:
    """Yield each narration in the format of Localized Narratives."""
    for number, (words, points) in enumerate(narrations):
        content = {
            "dataset_id": f"scenes_{split}",
            "image_id": f"{index:06d}",
            "annotator_id": number,
            "caption": " ".join(word.text for word in words),
            "timed_caption": [_timed(word) for word in words],
            "traces": [
                [{"x": x / SIDE, "y": y / SIDE, "t": time / 1000} for x, y, time in points.tolist()]
            ],
            "voice_recording": "",
        }
        grounding = [
            None if word.instance is None else first_annotation + word.instance for word in words
        ]
        yield _Narrative(json.dumps(content, separators=(",", ":")), grounding)


def _timed(word: Word) -> dict[str, Any]:
    return {
        "utterance": word.text,
        "start_time": word.start / 1000,
        "end_time": word.end / 1000,
    }


def _annotations(scene: Scene, image_id: int) -> Iterator[dict[str, Any]]:
    """Yield the COCO annotation of each instance; masks are compressed RLE, exact to the pixel."""
    stacked = np.asfortranarray(scene.masks.transpose(1, 2, 0).astype(np.uint8))
    for instance, category_id, rle in zip(
        scene.instances, scene.category_ids, coco_mask.encode(stacked), strict=True
    ):
        yield {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": list(instance.box),
            "area": instance.area,
            "iscrowd": 0,
            "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
            "attributes": {"size": instance.size, "color": instance.color},
        }


def _write_annotations(folder: Path, split: str, parts: list[_Records]) -> None:
    """Write the instances (where labelled), captions and narratives of a split."""
    images = [image for part in parts for image in part.images]
    captions = _numbered(caption for part in parts for caption in part.captions)
    contents = {"captions": {"images": images, "annotations": captions}}
    if split in _LABELLED:
        annotations = _numbered(annotation for part in parts for annotation in part.annotations)
        categories = [
            {"id": 1 + k, "name": shape, "supercategory": "shape"} for k, shape in enumerate(SHAPES)
        ]
        contents["instances"] = {
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
    for kind, content in contents.items():
        version = IMAGES_VERSION if kind == "instances" else GENERATOR_VERSION
        info = {"description": "captioned scenes", "version": str(version)}
        (folder / "annotations" / f"{kind}_{split}.json").write_text(
            json.dumps({"info": info, **content})
        )
    _write_narratives(folder / "annotations" / f"narratives_{split}.jsonl", parts)


def _write_narratives(path: Path, parts: list[_Records]) -> None:
    """Write the narratives of a split, each with the annotation ids of its words."""
    first_id = 1
    with path.open("w", encoding="utf-8") as file:
        for part in parts:
            for line, grounding in part.narratives:
                ids = [None if position is None else first_id + position for position in grounding]
                file.write(f'{line[:-1]},"grounding":{json.dumps(ids)}}}\n')
            first_id += len(part.annotations)


def _numbered(entries: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": number, **entry} for number, entry in enumerate(entries, start=1)]
