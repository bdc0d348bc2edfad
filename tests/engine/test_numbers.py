from torch import nn

from virtex_det.engine.numbers import changed_numbers, numbers_of, set_numbers


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm2d(2)
        self.size = 3


def test_what_has_changed_or_appeared_goes_into_another_model():
    model, other = Remembers(), Remembers()
    before = numbers_of(model)
    assert changed_numbers(model, before) == {}
    model.eval()
    model.inner.loss_normalizer = 7.5
    model.size = 4
    changed = changed_numbers(model, before)
    assert changed == {"": {"size": 4}, "inner": {"loss_normalizer": 7.5}}
    set_numbers(other, changed)
    assert other.inner.loss_normalizer == 7.5 and other.size == 4 and other.training
