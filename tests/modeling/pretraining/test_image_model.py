"""What all tasks share: pixels, targets, and losses that several processes share out exactly."""

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from tests.modeling.pretraining.conftest import images, with_targets
from tests.processes import launch_processes
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.image_model import (
    ImageModel,
    TargetLosses,
    mean_over_processes,
)


class Threshold(ImageModel):
    """Its targets are numbers, its loss their distances to a weight."""

    target, mapper = "numbers", "NumbersMapper"

    def __init__(self):
        super().__init__(nn.Identity(), [0.0] * 3, [1.0] * 3)
        self.weight = nn.Parameter(torch.zeros(()))

    def target_losses(self, batched_inputs):
        numbers = self.on_device(batched_inputs, self.target)
        index = torch.arange(len(numbers)).repeat_interleave(
            torch.tensor([len(n) for n in numbers])
        )
        return {"loss": TargetLosses(torch.cat(numbers) - self.weight, index)}


def test_training_gives_the_mean_over_all_targets_of_all_images():
    assert Threshold()(with_targets("numbers", [[1, 2, 3], [10]]))["loss"] == 4


def test_evaluation_gives_sums_and_numbers_of_targets_per_image():
    first, second, third = Threshold().eval()(with_targets("numbers", [[1, 2, 3], [10], []]))
    assert first["losses"]["loss"].tolist() == [6, 3]
    assert second["losses"]["loss"].tolist() == [10, 1]
    assert third["losses"]["loss"].tolist() == [0, 0]


def test_only_images_with_a_target_have_losses_in_evaluation():
    plain, labelled = Threshold().eval()([*images(1), *with_targets("numbers", [[4]])])
    assert plain == {} and labelled["losses"]["loss"].tolist() == [4, 1]
    assert Threshold().eval()(images(2)) == [{}, {}]


def test_an_example_to_train_on_needs_a_target():
    with pytest.raises(
        UserError, match=r"Threshold.*'numbers'.*image.*DATALOADER.MAPPER empty.*NumbersMapper"
    ):
        Threshold()([*with_targets("numbers", [[1]]), *images(1)])


def test_no_target_at_all_is_no_loss_and_no_gradient():
    model = Threshold()
    loss = model(with_targets("numbers", [[], []]))["loss"]
    loss.backward()
    assert loss == 0 and model.weight.grad == 0


def _mean_of_a_process(folder: str) -> None:
    rank = comm.get_rank()
    shares = {"many": ([1, 2, 3, 4], [10]), "one": ([], [10]), "none": ([], [])}
    values = {
        name: torch.tensor(share[rank], dtype=torch.float32) for name, share in shares.items()
    }
    losses = {
        name: TargetLosses(v, torch.zeros(len(v), dtype=torch.int64)) for name, v in values.items()
    }
    torch.save(mean_over_processes(losses), f"{folder}/{rank}.pth")


def test_the_mean_of_two_processes_is_that_of_one_with_the_whole_batch(tmp_path):
    launch_processes(_mean_of_a_process, str(tmp_path), processes=2)
    found = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    means = {name: float(found[0][name] + found[1][name]) / 2 for name in found[0]}
    assert means == {"many": 20 / 5, "one": 10, "none": 0}


def test_pixels_are_normalised_in_the_model(build):
    model = build("CaptioningModel").eval()
    shifted = [{"image": example["image"].float() * 2 + 10} for example in images()]
    expected = model.visual_grid(images())
    model.pixel_mean.copy_(model.pixel_mean * 2 + 10)
    model.pixel_std.copy_(model.pixel_std * 2)
    torch.testing.assert_close(model.visual_grid(shifted), expected)
    assert not any(name.startswith("pixel") for name in model.state_dict())


@pytest.mark.parametrize(
    "task",
    [
        *("BicaptioningModel", "TokenClassificationModel", "MultilabelClassificationModel"),
        *("ICMLMModel", "TagPredictionModel", "ImageClassifier"),
    ],
)
def test_a_pyramid_in_place_of_the_last_feature_map_is_named(task, build):
    pyramid = ("MODEL.BACKBONE.NAME", "build_caption_resnet_fpn_backbone")
    maps = [f"res{stage}" for stage in range(2, 6)]
    keys = ("MODEL.RESNETS.OUT_FEATURES", maps, "MODEL.FPN.IN_FEATURES", maps)
    tags = ("MODEL.TAG_PREDICTION.NUM_TAGS", 5)
    with pytest.raises(UserError, match=r"reads the feature map res5, but .* returns p2, .*p6"):
        build(task, *pyramid, *keys, *tags)
