import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny_bert import make_bert
from virtex_det.data.wordpiece import WordPieceTokenizer
from virtex_det.errors import UserError
from virtex_det.modeling.textual.bert import BertTextEncoder, sentence_vectors

TOKENS = torch.tensor([[3, 6, 7, 8, 4], [3, 9, 4, 0, 0]])


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "bert")


class Model(nn.Module):
    """Something to train beside a BERT."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.output_size, 2)


@pytest.mark.parametrize("frozen", [True, False])
def test_its_vectors_are_those_of_transformers(folder, frozen):
    from transformers import BertModel

    expected = (
        BertModel.from_pretrained(folder)
        .eval()(TOKENS, attention_mask=TOKENS != 0)
        .last_hidden_state
    )
    found = BertTextEncoder(folder, frozen).eval()(TOKENS)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, :3], expected[1, :3])


@pytest.mark.parametrize("frozen", [True, False])
def test_where_shapes_are_enough_it_has_those_of_the_file_and_no_values(copy, frozen):
    whole = BertTextEncoder(copy, frozen)
    (copy / "model.safetensors").unlink()
    with torch.device("meta"):
        encoder = BertTextEncoder(copy, frozen)
    assert all(tensor.is_meta for tensor in encoder.state_dict().values())
    shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in whole.state_dict().items()}
    assert encoder.name == "bert"


def test_frozen_it_has_no_parameters_and_gives_no_gradients(folder):
    encoder = BertTextEncoder(folder)
    assert not list(encoder.parameters()) and not encoder(TOKENS).requires_grad


def test_frozen_it_drops_nothing_while_the_model_trains(folder):
    model = Model(BertTextEncoder(folder)).train()
    assert model.head.training and not any(module.training for module in model.encoder.modules())
    assert torch.equal(model.encoder(TOKENS), model.encoder(TOKENS))


def test_frozen_it_moves_with_the_model(folder):
    model = Model(BertTextEncoder(folder)).to(torch.device("meta"))
    assert {buffer.device.type for buffer in model.encoder.buffers()} == {"meta"}


def test_frozen_a_checkpoint_holds_its_hash_and_nothing_more(folder):
    assert set(Model(BertTextEncoder(folder)).state_dict()) == {
        "encoder.fingerprint",
        "head.weight",
        "head.bias",
    }


def test_frozen_a_model_goes_on_beside_the_same_bert_as_if_never_stopped(folder):
    model, resumed = Model(BertTextEncoder(folder)), Model(BertTextEncoder(folder))
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(model.head(model.encoder(TOKENS)), resumed.head(resumed.encoder(TOKENS)))


def test_frozen_a_model_stops_beside_another_bert(folder, tmp_path):
    model, other = (
        Model(BertTextEncoder(folder)),
        Model(BertTextEncoder(make_bert(tmp_path / "other", seed=1))),
    )
    other.load_state_dict(model.state_dict())
    with pytest.raises(UserError, match=rf"another BERT than the one now in {tmp_path}/other"):
        other.encoder(TOKENS)


def test_thawed_it_is_a_part_of_the_model_like_any_other(folder):
    encoder = BertTextEncoder(folder, frozen=False).train()
    encoder(TOKENS).square().mul(torch.rand(16)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert set(encoder.state_dict()) == {name for name, _ in encoder.named_parameters()}
    assert not torch.equal(encoder(TOKENS), encoder(TOKENS))  # dropout


def test_weights_cut_short_are_an_error_that_names_the_folder(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"Cannot read the BERT in {copy}"):
        BertTextEncoder(copy)


@pytest.mark.parametrize(
    "change, message",
    [({"num_hidden_layers": 3}, "16 tensors are missing"), ({"hidden_size": 32}, "Cannot read")],
)
def test_weights_of_another_bert_than_its_config_are_an_error(copy, change, message):
    config = copy / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        BertTextEncoder(copy)


def test_a_pickle_that_runs_code_is_refused(copy, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    (copy / "model.safetensors").unlink()
    torch.save({"weight": Harmful()}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="Cannot read the BERT"):
        BertTextEncoder(copy)
    assert not (tmp_path / "harm").exists()


def test_a_pickle_of_tensors_is_read(folder, copy):
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert torch.equal(BertTextEncoder(copy)(TOKENS), BertTextEncoder(folder)(TOKENS))


def test_a_sentence_vector_is_the_mean_over_its_tokens_whatever_the_batch(folder):
    encoder, tokenizer = BertTextEncoder(folder), WordPieceTokenizer(folder)
    captions = ["a cat", "the red star sits on a catfish", "a dog"]
    vectors = sentence_vectors(captions, tokenizer, encoder, batch_size=2)
    tokens = torch.tensor([[tokenizer.sos_id, *tokenizer.encode(captions[0]), tokenizer.eos_id]])
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], encoder(tokens)[0].mean(0).numpy(), rtol=1e-4, atol=1e-5)


def test_a_long_sentence_is_cut(folder):
    encoder, tokenizer = BertTextEncoder(folder), WordPieceTokenizer(folder)
    long, cut = "a cat " * 40, "a cat " * 4
    vectors = sentence_vectors([long, cut], tokenizer, encoder, max_length=10)
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-5)
