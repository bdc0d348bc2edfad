import math

import numpy as np
from detectron2.data import MetadataCatalog

from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.object_words import object_words

POINTS = np.array([[0.5, 0.25, 0.2]], dtype=np.float32)


def narrative(*words):
    """Words with the annotation that each is about, or None."""
    return {
        "utterances": [(word, number, number + 1) for number, (word, _) in enumerate(words)],
        "points": POINTS,
        "grounding": [annotation for _, annotation in words],
    }


def entry(*traces):
    captions = [" ".join(text for text, _, _ in trace["utterances"]) for trace in traces]
    return {"file_name": "0.png", "image_id": 17, "captions": captions, "traces": [*traces]}


def test_each_object_word_of_the_first_narrative_is_a_caption_of_its_own():
    first = narrative(("red", 7), ("star", 7), ("above", None), ("ring", 8))
    found = object_words([entry(first, narrative(("heart", 9)))], ["star", "ring", "heart"])
    assert [word["captions"] for word in found] == [["a star"], ["a ring"]]
    assert [word["image_id"] for word in found] == ["17:1", "17:3"]
    assert all(word["file_name"] == "0.png" for word in found)
    [trace] = found[0]["traces"]
    assert trace["utterances"] == [("a", math.inf, -math.inf), ("star", 1, 2)]
    assert trace["grounding"] == [None, 7] and trace["points"] is POINTS


def test_words_about_nothing_words_for_no_class_and_narratives_without_grounding_are_left_out():
    words = narrative(("star", None), ("red", 7))
    ungrounded = {"utterances": [("star", 0, 1)], "points": POINTS}
    assert object_words([entry(words), entry(ungrounded)], ["star"]) == []


def test_those_of_the_scenes_name_objects_of_their_images(scenes):
    words, images = load_dataset("scenes_val_words"), load_dataset("scenes_val_narratives")
    assert len(words) >= len(images)
    assert len({word["image_id"] for word in words}) == len(words)
    classes = MetadataCatalog.get("scenes_val").thing_classes
    assert {word["captions"][0].removeprefix("a ") for word in words} <= {*classes}
    instances = MetadataCatalog.get("scenes_val_words").instances_json
    assert instances == MetadataCatalog.get("scenes_val_narratives").instances_json
