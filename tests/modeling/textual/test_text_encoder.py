import pytest
import torch

from tests.tiny_bert import make_bert
from virtex_det import get_cfg
from virtex_det.errors import UserError
from virtex_det.modeling.textual.bert import BertTextEncoder
from virtex_det.modeling.textual.text_encoder import TransformerTextEncoder, build_text_encoder

TOKENS = torch.tensor([[3, 6, 7, 8, 4], [3, 9, 4, 0, 0]])


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def cfg():
    cfg = get_cfg()
    options = cfg.MODEL.TEXTUAL
    options.HIDDEN_SIZE, options.ATTENTION_HEADS = 16, 2
    options.FEEDFORWARD_SIZE, options.NUM_LAYERS = 32, 2
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 22
    return cfg


@pytest.fixture(params=["random", "random, norm first", "bert"])
def encoder(request, cfg, bert):
    if request.param == "bert":
        cfg.MODEL.TEXT_ENCODER.WEIGHTS = str(bert)
    cfg.MODEL.TEXTUAL.NORM_FIRST = "norm first" in request.param
    return build_text_encoder(cfg)


def test_each_token_has_a_vector_of_the_output_size(encoder):
    assert encoder(TOKENS).shape == (2, 5, encoder.output_size) and encoder.output_size == 16
    with torch.no_grad():
        assert encoder.eval()(TOKENS[1:]).shape == (1, 5, 16)


def test_a_token_sees_those_before_and_after_it(encoder):
    changed = TOKENS.clone()
    changed[0, 3] = 10
    before, after = encoder.eval()(TOKENS), encoder(changed)
    assert ((before - after)[0].abs().amax(1) > 1e-5).all() and torch.equal(before[1], after[1])


def test_padding_makes_no_difference_to_tokens(encoder):
    encoder.eval()
    torch.testing.assert_close(
        encoder(TOKENS)[1, :3], encoder(TOKENS[1:, :3])[0], rtol=1e-4, atol=1e-5
    )


def test_a_padding_mask_is_heeded_where_given(encoder):
    """The unknown piece of SentencePiece has padding's id."""
    tokens, padding = (
        torch.tensor([[3, 0, 9, 4, 0]]),
        torch.tensor([[False, False, False, False, True]]),
    )
    encoder.eval()
    assert not torch.allclose(encoder(tokens)[0, :4], encoder(tokens, padding)[0, :4])
    torch.testing.assert_close(
        encoder(tokens, padding)[0, :4],
        encoder(tokens[:, :4], padding[:, :4])[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_random_one_learns_all_its_weights(cfg):
    encoder = build_text_encoder(cfg)
    encoder(TOKENS).square().mul(torch.rand(16)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("std", [0.02, 0.25])
def test_the_random_one_starts_from_the_given_deviation(std):
    encoder = TransformerTextEncoder(50, 64, 1, 2, 256, init_std=std)
    layer = encoder.transformer.layers[0]
    for weight in (
        layer.self_attn.in_proj_weight,
        layer.linear1.weight,
        encoder.embedding.words.weight[1:],
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.1)
    assert not encoder.embedding.words.weight[0].any()


def test_without_weights_the_config_gives_a_random_one_and_with_them_a_bert(cfg, bert):
    assert isinstance(build_text_encoder(cfg), TransformerTextEncoder)
    cfg.MODEL.TEXT_ENCODER.WEIGHTS = str(bert)
    encoder = build_text_encoder(cfg)
    assert isinstance(encoder, BertTextEncoder) and encoder.frozen
    cfg.MODEL.TEXT_ENCODER.FREEZE = False
    assert not build_text_encoder(cfg).frozen


def test_a_bert_of_another_vocabulary_is_refused_with_what_to_set(cfg, bert):
    cfg.MODEL.TEXT_ENCODER.WEIGHTS, cfg.MODEL.TEXTUAL.VOCAB_SIZE = str(bert), 10000
    with pytest.raises(
        UserError, match=rf"has 22 tokens(?s:.*)has 10000(?s:.*)INPUT.CAPTION.TOKENIZER {bert}"
    ):
        build_text_encoder(cfg)


def test_captions_longer_than_bert_reads_are_refused(cfg, bert):
    cfg.MODEL.TEXT_ENCODER.WEIGHTS, cfg.INPUT.CAPTION.MAX_LENGTH = str(bert), 33
    with pytest.raises(UserError, match="at most 32 tokens"):
        build_text_encoder(cfg)


def test_heads_that_do_not_divide_the_width_are_refused_with_ones_that_do(cfg):
    cfg.MODEL.TEXTUAL.ATTENTION_HEADS = 3
    with pytest.raises(
        UserError, match=r"MODEL.TEXTUAL.ATTENTION_HEADS is 3.*vector, 16(?s:.*)such as 16\."
    ):
        build_text_encoder(cfg)
