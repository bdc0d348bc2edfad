from pathlib import Path

import pytest

from virtex_det.protocols.catalog import protocols

ROOT = Path(__file__).resolve().parents[2]

# What the facts about published protocols ask for, by id.
PUBLISHED = {
    *(
        "coco-segm-2x",
        "coco-segm-1x",
        "coco-segm-1x-d2-default",
        "coco-segm-1x-4conv1fc",
        "coco-segm-1x-soco",
    ),
    *("coco-segm-1x-vissl", "coco-segm-2x-C4", "coco-segm-1x-C4", "coco-segm-clip-1x"),
    *("lvis-segm-2x", "lvis-segm-2x-frozen-bn", "voc-det-24k"),
    *("lvis-v0.5-segm-2x", "lvis-v0.5-segm-2x-frozen-bn"),
    *("imagenet-linear", "inat18-finetune", "voc07-linear-svm"),
}


def test_the_published_protocols_and_our_own_are_there():
    ours = {name for name, protocol in protocols().items() if protocol.paper == "this package"}
    assert ours == {
        *("scenes-segm", "scenes-segm-frozen", "scenes-linear-svm"),
        "coco-segm-clip-1x-C4",
    }
    assert protocols().keys() - ours == PUBLISHED


@pytest.mark.parametrize("protocol", protocols().values(), ids=protocols())
def test_a_protocol_names_its_paper_its_section_its_data_and_a_config_of_its_own(protocol):
    assert (ROOT / protocol.config).is_file()
    assert [other.config for other in protocols().values()].count(protocol.config) == 1
    assert protocol.dataset_version and protocol.paper
    assert protocol.section or protocol.paper == "this package"


@pytest.mark.parametrize("protocol", protocols().values(), ids=protocols())
def test_the_header_of_a_config_says_how_long_it_takes_and_which_protocol_it_is(protocol):
    header = (ROOT / protocol.config).read_text().partition("_BASE_")[0]
    if not protocol.id.endswith("linear-svm"):  # which trains no network
        assert "Schedule: " in header
    if protocol.config.startswith("configs/detectron2"):
        assert f"Protocol: {protocol.id}" in header
