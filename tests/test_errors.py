import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from virtex_det.data.images import BrokenImage
from virtex_det.errors import UserError

MESSAGE = (
    "images/UserError: a.jpg is cut short.\nFetch it again: virtex_det.errors.UserError: is a name"
)


class Broken(Dataset):
    def __init__(self, kind: type[UserError]) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        try:
            raise KeyError("a cause, whose traceback comes first")
        except KeyError as error:
            raise self.kind(MESSAGE) from error


@pytest.mark.parametrize("kind", [UserError, BrokenImage])
def test_an_error_in_a_loader_process_has_its_message_without_the_traceback(kind):
    with pytest.raises(kind) as caught:
        list(DataLoader(Broken(kind), num_workers=1))
    assert str(caught.value) == MESSAGE


@pytest.mark.parametrize(
    "message", ["data/UserError: b.json is damaged", "UserError: ", "a\nUserError: b", ""]
)
def test_a_message_that_contains_the_class_name_is_whole(message):
    assert str(UserError(message)) == message
