"""Object words of narratives as captions of their own: the pointing game without context."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.narratives import load_narratives

_ARTICLE = ("a", math.inf, -math.inf)  # at no time, so that no point belongs to it


def register_object_words(
    name: str,
    jsonl_file: str | Path,
    image_root: str | Path,
    classes: Sequence[str],
    **metadata: Any,
) -> None:
    """Register the object words of narratives with Detectron2; they are read on first use.

    Args:
        name: name of the dataset, e.g. "scenes_val_words".
        jsonl_file: narratives with "grounding".
        image_root: folder of the images.
        classes: names of the objects' classes.
        metadata: other entries of its metadata, such as "instances_json".
    """
    DatasetCatalog.register(
        name, lambda: object_words(load_narratives(jsonl_file, image_root), classes)
    )
    MetadataCatalog.get(name).set(
        json_file=str(jsonl_file),
        image_root=str(image_root),
        evaluator_type="captions",
        **metadata,
    )


def object_words(dicts: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a dict for each word of an image's first narrative that names the class of an object.

    Evaluation reads first narratives, so these are the words that the pointing game judges in
    captions. Here each stands alone behind an article: a model that finds the object by the other
    words of the caption does not find it here.

    Args:
        dicts: of ``load_narratives``, with "grounding".
        classes: names of the objects' classes.

    Returns:
        Dicts of ``load_narratives`` with one narrative of two words; "image_id" is the image's with
        the number of the word in its narrative, such as "17:2".

    Example:
        >>> trace = {"utterances": [("one", 0, 1), ("ring", 1, 2)], "grounding": [None, 5]}
        >>> image = {"image_id": 17, "captions": ["one ring"], "traces": [{**trace, "points": []}]}
        >>> [word] = object_words([image], ["ring"])
        >>> word["image_id"], word["captions"]
        ('17:1', ['a ring'])
    """
    words = []
    for entry in dicts:
        trace = entry["traces"][0]
        grounded = zip(trace["utterances"], trace.get("grounding", ()), strict=False)
        for number, (utterance, annotation) in enumerate(grounded):
            if annotation is None or utterance[0] not in classes:
                continue
            alone = {
                "utterances": [_ARTICLE, utterance],
                "points": trace["points"],
                "grounding": [None, annotation],
            }
            words.append(
                {
                    **entry,
                    "image_id": f"{entry['image_id']}:{number}",
                    "captions": [f"a {utterance[0]}"],
                    "traces": [alone],
                }
            )
    return words
