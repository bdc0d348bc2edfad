import pytest
from fvcore.common.registry import Registry
from torch import nn

from virtex_det.config import get_cfg, load_config, mappers
from virtex_det.config.mappers import OURS, mapper_name, unfit_mapper
from virtex_det.data import MAPPER_REGISTRY
from virtex_det.errors import UserError

OWN = {
    "GeneralizedRCNN": "DetectionMapper",
    "BicaptioningModel": "CaptionMapper",
    "CaptioningModel": "CaptionMapper",
    "TokenClassificationModel": "CaptionMapper",
    "MaskedLanguageModel": "MaskedCaptionMapper",
    "MultilabelClassificationModel": "MultilabelMapper",
    "ICMLMModel": "ConceptMapper",
    "TagPredictionModel": "ConceptMapper",
    "LocTexModel": "NarrativeMapper",
    "LocCaModel": "RegionMapper",
    "ImageClassifier": "ClassificationMapper",
}


@pytest.fixture
def register(monkeypatch):
    """Registers a meta-architecture for one test, and makes a config that names it."""
    registry = Registry("META_ARCH")
    monkeypatch.setattr(mappers, "META_ARCH_REGISTRY", registry)

    def add(name, **attributes):
        registry.register(type(name, (nn.Module,), attributes))
        return config(name)

    return add


def config(architecture="GeneralizedRCNN", mapper=""):
    """A config as it is before loading."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.DATALOADER.MAPPER = architecture, mapper
    return cfg


def loaded(architecture, mapper="", **others):
    names = {"MODEL.META_ARCHITECTURE": architecture, "DATALOADER.MAPPER": mapper}
    return load_config("", names | others)


@pytest.mark.parametrize(("architecture", "mapper"), OWN.items())
def test_a_model_names_its_mapper_and_a_loaded_config_holds_the_name(architecture, mapper):
    assert config().DATALOADER.MAPPER == ""
    assert loaded(architecture).DATALOADER.MAPPER == mapper
    assert mapper_name(config(architecture)) == mapper


def test_any_detector_of_detectron2_has_the_mapper_of_detectors():
    assert mapper_name(config("RetinaNet")) == "DetectionMapper"


def test_without_the_loss_on_attention_loctex_learns_from_captions_alone():
    cfg = config("LocTexModel")
    cfg.MODEL.LOCTEX.LOCALIZATION_WEIGHT = 0.0
    assert mapper_name(cfg) == "CaptionMapper"


def test_tags_are_what_the_named_file_has():
    cfg = config("TagPredictionModel")
    cfg.INPUT.CAPTION.CLUSTERS = "clusters.json"
    assert mapper_name(cfg) == "ClusterMapper"
    cfg.INPUT.CAPTION.CONCEPTS = "concepts.json"
    assert mapper_name(cfg) == "ConceptMapper"


@pytest.mark.parametrize(
    ("architecture", "mapper", "takes"),
    [
        ("GeneralizedRCNN", "CaptionMapper", "DetectionMapper"),
        ("BicaptioningModel", "DetectionMapper", "CaptionMapper"),
        ("BicaptioningModel", "MaskedCaptionMapper", "CaptionMapper"),  # its captions have holes
        ("LocTexModel", "CaptionMapper", "NarrativeMapper"),  # has no traces
        ("LocCaModel", "NarrativeMapper", "RegionMapper"),  # has no prompts
        ("ImageClassifier", "MultilabelMapper", "ClassificationMapper"),
    ],
)
def test_a_mapper_that_does_not_fit_the_model_is_refused(architecture, mapper, takes):
    with pytest.raises(
        UserError, match=rf"MAPPER is {mapper}, but {architecture} .*{takes}.*which takes {takes}"
    ):
        loaded(architecture, mapper)


@pytest.mark.parametrize(
    ("architecture", "mapper"),
    [
        ("GeneralizedRCNN", "DatasetMapper"),
        ("CaptioningModel", "NarrativeMapper"),
        ("MaskedLanguageModel", "ConceptMapper"),
        ("TagPredictionModel", "ClusterMapper"),
        ("ICMLMModel", "MaskedCaptionMapper"),
    ],
)
def test_another_mapper_with_the_same_targets_is_accepted(architecture, mapper):
    assert loaded(architecture, mapper).DATALOADER.MAPPER == mapper


def test_masking_any_word_gives_no_tags():
    with pytest.raises(UserError, match="ICMLMModel learns from the examples of ConceptMapper"):
        loaded("ICMLMModel", "MaskedCaptionMapper", **{"MODEL.ICMLM.TAG_WEIGHT": 1.0})


def test_a_mapper_of_another_package_is_not_checked():
    assert not [*unfit_mapper(config(mapper="TheirMapper"))]


def test_a_model_of_another_package_may_name_its_mapper(register):
    assert mapper_name(register("Silent")) == "DetectionMapper"
    attribute = register("WithAttribute", mapper="TheirMapper")
    assert mapper_name(attribute) == "TheirMapper"
    assert not [*unfit_mapper(config("Silent", "CaptionMapper"))]
    method = register(
        "WithMethod", mappers=classmethod(lambda cls, cfg: ("TheirMapper", "CaptionMapper"))
    )
    assert mapper_name(method) == "TheirMapper"
    method.DATALOADER.MAPPER = "ConceptMapper"
    assert len([*unfit_mapper(method)]) == 1


def test_the_list_of_our_mappers_is_what_is_registered():
    registered = {
        name for name, mapper in MAPPER_REGISTRY if mapper.__module__.startswith("virtex_det.")
    }
    assert registered == {*OURS}
