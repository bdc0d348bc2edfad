"""Caption files with one field changed at a time: an error that names file and entry, or data as they were."""

import json

import pytest

from virtex_det.data.datasets import load_coco_captions, load_pairs
from virtex_det.data.datasets.narratives import load_narratives
from virtex_det.errors import UserError

MISSING = object()
VALUES = [
    MISSING,
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    "",
    " ",
    "1_2",
    "１",
    "\ud800",
    "a\0b",
    [],
    [[]],
    [None],
    {},
]


def captions(folder, content):
    (folder / "captions.json").write_text(json.dumps(content))
    return load_coco_captions(folder / "captions.json", folder)


def pairs(folder, content):
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, content)))
    return load_pairs(folder / "pairs.jsonl")


def narratives(folder, content):
    (folder / "narratives.jsonl").write_text("\n".join(map(json.dumps, content)))
    return load_narratives(folder / "narratives.jsonl", folder)


WORD = {"utterance": "a dog", "start_time": 0.0, "end_time": 1.0}
POINT = {"x": 0.5, "y": 0.5, "t": 0.5}
READERS = {
    captions: {
        "images": [{"id": 7, "file_name": "7.jpg", "height": 9, "width": 9}, {"id": 8, "file_name": "8.jpg"}],
        "annotations": [{"id": 3, "image_id": 7, "caption": "a dog"}, {"id": 4, "image_id": 8, "caption": "a cat"}],
    },
    pairs: [{"image": "7.jpg", "caption": "a dog"}, {"image": "8.jpg", "captions": ["a cat", "a pet"]}],
    narratives: [
        {"image_id": "7", "caption": "a dog", "timed_caption": [WORD], "traces": [[POINT]]},
        {"image_id": "8", "caption": "a dog", "timed_caption": [WORD], "traces": [[POINT]]},
    ],
}


def places(content, path=()):
    """Every place in JSON: of an entry, of a field, of a list in it."""
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def changed(content, path, value):
    content = json.loads(json.dumps(content))
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


CASES = [(reader, path) for reader, content in READERS.items() for path in places(content)]


@pytest.mark.parametrize(("reader", "path"), CASES, ids=str)
def test_a_wrong_value_is_refused_by_name_or_read_as_text(reader, path, tmp_path):
    for value in VALUES:
        try:
            dicts = reader(tmp_path, changed(READERS[reader], path, value))
        except UserError as error:
            assert reader.__name__ in str(error) and len(str(error)) < 1200
            continue
        ids = [str(entry["image_id"]) for entry in dicts]
        assert len(set(ids)) == len(ids) and all(isinstance(entry["image_id"], int | str) for entry in dicts)
        for entry in dicts:
            assert type(entry["image_id"]) is not bool and isinstance(entry["file_name"], str)
            assert entry["captions"] and all(caption.strip() and caption.encode() for caption in entry["captions"])
