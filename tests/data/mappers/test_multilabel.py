import pytest
import torch

from virtex_det import get_cfg
from virtex_det.data import CaptionMapper, MultilabelMapper
from virtex_det.errors import UserError


@pytest.fixture
def cfg(tokenizer_file):
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.FORMAT", "RGB", "INPUT.CAPTION.CROP_SIZE", 16])
    return cfg


def test_labels_are_the_classes_from_one_on_sorted_each_once_crowds_among_them(cfg, example):
    example["annotations"] += example["annotations"][:2]
    mapped = MultilabelMapper(cfg, True)(example)
    assert mapped["labels"].tolist() == [1, 2, 3] and mapped["labels"].dtype == torch.int64
    assert mapped["image"].shape == (3, 16, 16) and mapped["image_id"] == 7
    assert "annotations" not in mapped and "captions" not in mapped


def test_an_image_without_objects_has_no_labels(cfg, example):
    labels = MultilabelMapper(cfg, True)({**example, "annotations": []})["labels"]
    assert labels.shape == (0,) and labels.dtype == torch.int64


def test_pixels_are_augmented_as_for_captions(cfg, example, tokenizer_file):
    torch.manual_seed(0)
    ours = MultilabelMapper(cfg, True)(example)["image"]
    cfg.merge_from_list(
        ["INPUT.CAPTION.TOKENIZER", str(tokenizer_file), "MODEL.TEXTUAL.VOCAB_SIZE", 60]
    )
    torch.manual_seed(0)
    assert torch.equal(ours, CaptionMapper(cfg, True)(example)["image"])


def test_an_image_without_annotations_is_an_error_that_names_it(cfg, example):
    del example["annotations"]
    with pytest.raises(UserError, match=r"photo\.jpg(?s:.*)coco_2017_train"):
        MultilabelMapper(cfg, True)(example)


def test_a_format_without_colours_is_an_error(cfg):
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(UserError, match="MultilabelMapper reads RGB or BGR.*'L'"):
        MultilabelMapper(cfg, True)
