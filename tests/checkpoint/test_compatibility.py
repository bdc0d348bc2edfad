import pytest
import torch

from tests.checkpoint.conftest import own_pretraining, torchvision_tensors
from tests.checkpoint.layouts import LAYOUTS
from tests.checkpoint.originals import config, network
from virtex_det.checkpoint import TransferCheckpointer
from virtex_det.checkpoint.compatibility import check_config, contradictions, follow_weights
from virtex_det.checkpoint.formats import CLIP_RGB, FORMATS, OWN_CHECKPOINT
from virtex_det.checkpoint.recognition import recognise
from virtex_det.engine import argument_parser, setup
from virtex_det.errors import UserError

BY_NAME = {entry.name: entry for entry in FORMATS}


def weights(layout: str):
    content = LAYOUTS[layout].content(network(LAYOUTS[layout].original))
    tensors = {
        name: torch.as_tensor(value) for name, value in content.items()
    }  # Detectron2's are arrays
    return recognise(tensors, layout)


def refusal(layout: str, cfg) -> str:
    recognised = weights(layout)
    with pytest.raises(UserError) as caught:
        check_config(recognised, cfg, "weights.pth")
    return str(caught.value)


@pytest.mark.parametrize(
    "entry", [entry for entry in FORMATS if entry.stem in (None, "basic")], ids=lambda e: e.name
)
def test_a_config_for_plain_rgb_contradicts_only_bgr_families(cfg, entry):
    assert bool(contradictions(entry, cfg)) == (entry.name == "detectron2_caffe2")


def test_a_config_for_bgr_and_caffe_strides_contradicts_virtex(cfg):
    caffe = cfg.clone()
    caffe.INPUT.FORMAT = "BGR"
    caffe.MODEL.PIXEL_MEAN = [103.53, 116.28, 123.675]
    caffe.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]
    caffe.MODEL.RESNETS.STRIDE_IN_1X1 = True
    assert contradictions(BY_NAME["detectron2_caffe2"], caffe) == {}
    assert contradictions(BY_NAME["virtex"], caffe) == {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }
    for entry in (BY_NAME["virtex_det_pretraining"], BY_NAME["detector"], OWN_CHECKPOINT):
        assert contradictions(entry, caffe) == {}


@pytest.mark.parametrize(
    "layout", ["torchvision V1 and V2", "open_clip", "timm 50d", "detectron2 MSRA", "timm 50s"]
)
def test_setting_the_keys_of_a_contradiction_resolves_it(cfg, layout):
    right = config(LAYOUTS[layout].original)
    wrong = config("CLIP RN50x4") if "clip" not in layout else cfg.clone()
    message = refusal(layout, wrong)
    settings = [
        line.strip().split(" ", 1) for line in message.splitlines() if line.startswith("  ")
    ]
    for key, value in settings:
        wrong.merge_from_list([key, value.strip('"')])
    check_config(weights(layout), wrong, "weights.pth")
    for key in ("STEM", "DOWNSAMPLE", "BLOCKS"):
        assert wrong.MODEL.CAPTION_RESNET[key] == right.MODEL.CAPTION_RESNET[key]
    assert wrong.MODEL.RESNETS.WIDTH_PER_GROUP == right.MODEL.RESNETS.WIDTH_PER_GROUP
    assert wrong.MODEL.BACKBONE.NAME == "build_caption_resnet_fpn_backbone"


def test_a_deep_stem_instead_of_clips_is_refused_although_every_tensor_fits():
    deep = config("CLIP RN50")
    deep.MODEL.CAPTION_RESNET.STEM = "deep"
    assert 'MODEL.CAPTION_RESNET.STEM "clip"' in refusal("open_clip", deep)


def test_strides_instead_of_clips_pools_are_refused_although_every_tensor_fits():
    strided = config("CLIP RN50")
    strided.MODEL.CAPTION_RESNET.DOWNSAMPLE = "conv"
    assert 'MODEL.CAPTION_RESNET.DOWNSAMPLE "clip"' in refusal("open_clip", strided)


def test_detectron2s_own_builder_is_named_where_it_cannot_build_the_network(cfg):
    message = refusal("open_clip", cfg)
    assert 'MODEL.BACKBONE.NAME "build_caption_resnet_fpn_backbone"' in message


def test_the_stride_does_not_matter_without_bottlenecks(cfg):
    shallow = cfg.clone()
    shallow.MODEL.RESNETS.DEPTH = 18
    shallow.MODEL.RESNETS.STRIDE_IN_1X1 = True
    assert contradictions(BY_NAME["torchvision"], shallow) == {}


@pytest.fixture
def following(cfg, tmp_path):
    def make(path: str, follow: bool = True):
        changed = cfg.clone()
        changed.MODEL.WEIGHTS, changed.MODEL.FOLLOW_WEIGHTS = path, follow
        changed.OUTPUT_DIR = str(tmp_path / "run")
        changed.freeze()
        return changed

    return make


def test_pixels_follow_the_weights_if_the_config_asks(following, save):
    cfg = following(save(LAYOUTS["open_clip"].content(network("CLIP RN50"))))
    followed = follow_weights(cfg)
    assert (
        tuple(followed.MODEL.PIXEL_MEAN) == CLIP_RGB.mean
        and tuple(followed.MODEL.PIXEL_STD) == CLIP_RGB.std
    )
    assert followed.INPUT.FORMAT == "RGB" and followed.is_frozen()
    assert cfg.MODEL.PIXEL_MEAN[0] == 123.675


def test_pixels_stay_unless_the_config_asks(following):
    cfg = following("never/read.pth", follow=False)
    assert follow_weights(cfg) is cfg


def test_random_init_has_no_pixels_to_follow(following):
    cfg = following("")
    assert follow_weights(cfg) is cfg


def test_weights_with_unknown_pixels_cannot_be_followed(following, save, backbone_tensors):
    with pytest.raises(UserError, match="MODEL.FOLLOW_WEIGHTS False"):
        follow_weights(following(save(own_pretraining(backbone_tensors))))


def test_a_backbone_of_an_unknown_family_has_unknown_pixels(following, save):
    with pytest.raises(
        UserError,
        match="the pixel format of .* is unknown: .* of a known family(.|\n)*FOLLOW_WEIGHTS False",
    ):
        follow_weights(
            following(save({"patch_embed.weight": torch.ones(2), "blocks.0.weight": torch.ones(2)}))
        )


def test_a_resumed_run_follows_its_own_checkpoint_and_not_its_initial_weights(
    following, pretraining
):
    cfg = following("gone.pth")
    run = cfg.clone()
    run.defrost()
    run.INPUT.FORMAT = "BGR"
    cfg.defrost()
    cfg.MODEL.WEIGHTS_FORMAT = "moco"  # of the weights that it began with
    TransferCheckpointer(pretraining(), cfg.OUTPUT_DIR, cfg=run).save("model_0000009")
    assert follow_weights(cfg, resume=True).INPUT.FORMAT == "BGR"


def test_a_run_that_followed_clip_is_evaluated_with_clips_pixels(following, pretraining, save):
    followed = follow_weights(following(save(LAYOUTS["open_clip"].content(network("CLIP RN50")))))
    TransferCheckpointer(pretraining(), followed.OUTPUT_DIR, cfg=followed).save("model_final")
    cfg = following(f"{followed.OUTPUT_DIR}/model_final.pth")
    assert tuple(follow_weights(cfg).MODEL.PIXEL_MEAN) == CLIP_RGB.mean


def test_an_own_checkpoint_has_the_pools_that_it_was_pretrained_with(cfg, pretraining, tmp_path):
    run = cfg.clone()
    run.defrost()
    run.MODEL.BACKBONE.NAME = "build_caption_resnet_backbone"
    run.MODEL.CAPTION_RESNET.DOWNSAMPLE = "avg_shortcut"  # of which no tensor tells
    TransferCheckpointer(pretraining(), str(tmp_path), cfg=run).save("model_final")
    path = str(tmp_path / "model_final.pth")
    with pytest.raises(UserError, match='MODEL.CAPTION_RESNET.DOWNSAMPLE "avg_shortcut"'):
        TransferCheckpointer(pretraining(), cfg=cfg).load(path)
    TransferCheckpointer(pretraining(), cfg=run).load(path)


def test_the_config_of_a_new_run_follows_its_weights(scenes, request, tmp_path, monkeypatch, save):
    monkeypatch.chdir(request.config.rootpath)
    path = save(LAYOUTS["open_clip"].content(network("CLIP RN50")))
    options = [
        "MODEL.WEIGHTS",
        path,
        "MODEL.FOLLOW_WEIGHTS",
        "True",
        "OUTPUT_DIR",
        str(tmp_path / "run"),
    ]
    words = ["--config-file", "configs/detectron2/scenes_segm.yaml", *options]
    cfg = setup(argument_parser().parse_args(words))
    assert tuple(cfg.MODEL.PIXEL_MEAN) == CLIP_RGB.mean
    assert str(CLIP_RGB.mean[0]) in (tmp_path / "run" / "config.yaml").read_text()


def test_a_named_family_is_followed(following, save, backbone_tensors):
    cfg = following(save(torchvision_tensors(backbone_tensors))).clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS_FORMAT = "clip"
    with pytest.raises(UserError, match="is not a weights file of the family clip"):
        follow_weights(cfg)
