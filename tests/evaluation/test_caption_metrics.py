import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
from collections import defaultdict

import pytest

from virtex_det.evaluation import caption_metrics as module
from virtex_det.evaluation.caption_metrics import caption_metrics, missing_spice_models

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="caption metrics run on Java")

REFERENCES = {
    7: ["A brown dog runs on the beach.", "The dog is running near the sea; it is brown."],
    3: ["Two people ride bicycles down a street.", "A couple cycling in town"],
    5: ["A cat sleeps on a red sofa.", "Red sofa with a sleeping cat on it"],
}
PREDICTIONS = {
    7: "a brown dog running on the beach",
    3: "a man riding a horse",
    5: "a cat on a red sofa",
}


@pytest.fixture(autouse=True)
def say_everything():
    module._say_once.cache_clear()


def standard_metrics(folder, predictions, references) -> dict[str, float]:
    """What pycocoevalcap's own evaluation finds in files, without SPICE, which would download."""
    from pycocoevalcap import eval as coco_eval
    from pycocotools.coco import COCO

    class NoSpice:
        def method(self):
            return "SPICE"

        def compute_score(self, references, predictions):
            return 0.0, [{}] * len(references)

    truth = {
        "images": [{"id": image} for image in references],
        "annotations": [
            {"id": 1000 * image + number, "image_id": image, "caption": caption}
            for image, captions in references.items()
            for number, caption in enumerate(captions)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    results = [{"image_id": image, "caption": caption} for image, caption in predictions.items()]
    (folder / "results.json").write_text(json.dumps(results))
    coco = COCO(folder / "truth.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_eval, "Spice", NoSpice)
        evaluation = coco_eval.COCOEvalCap(coco, coco.loadRes(str(folder / "results.json")))
        evaluation.evaluate()
    names = {f"Bleu_{n}": f"BLEU_{n}" for n in range(1, 5)}
    return {
        names.get(name, name): 100 * value
        for name, value in evaluation.eval.items()
        if name != "SPICE"
    }


def without_spice(metrics):
    return {name: value for name, value in metrics.items() if name != "SPICE"}


@needs_java
@pytest.mark.slow
def test_the_numbers_are_those_of_the_standard_evaluation(tmp_path):
    found = without_spice(caption_metrics(PREDICTIONS, REFERENCES))
    assert found == pytest.approx(standard_metrics(tmp_path, PREDICTIONS, REFERENCES), rel=1e-9)
    assert set(found) == {"BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "METEOR", "ROUGE_L", "CIDEr"}
    assert found["BLEU_1"] > 50


@needs_java
@pytest.mark.slow
def test_a_held_out_coco_caption_scores_as_in_the_standard_evaluation(samples, tmp_path):
    content = json.loads(
        (samples / "coco_mini" / "annotations" / "captions_val2017.json").read_text()
    )
    references = defaultdict(list)
    for annotation in content["annotations"]:
        references[annotation["image_id"]].append(annotation["caption"])
    predictions = {image: captions.pop() for image, captions in references.items()}
    found = without_spice(caption_metrics(predictions, references))
    assert found == pytest.approx(standard_metrics(tmp_path, predictions, references), rel=1e-9)
    assert 15 < found["BLEU_4"] < 40  # people among themselves on COCO: about 20


ODD = {
    "a\ncat": "a cat",
    "a\r\ncat": "a cat",
    "the\u2028dog\x85sat\x0b": "the dog sat",
    "x ||| y": "x ||| y",
    "\ud83d \x00 caf\u00e9 \U0001f600": "caf\u00e9",
    " ": "",
    ".": "",
    "": "",
}


@needs_java
def test_odd_captions_stay_on_their_lines():
    references = {image: ["a cat sat", odd] for image, odd in enumerate(ODD)} | {
        100 + i: REFERENCES[i] for i in (3, 5)
    }
    others = {100 + image: PREDICTIONS[image] for image in (3, 5)}
    found = without_spice(caption_metrics(dict(enumerate(ODD)) | others, references))
    assert found.pop("METEOR") > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(module.METRICS, ("METEOR",))
        assert found == without_spice(
            caption_metrics(dict(enumerate(ODD.values())) | others, references)
        )


@needs_java
def test_nothing_is_printed_and_no_process_stays(capfd, monkeypatch):
    from pycocoevalcap.meteor.meteor import Meteor

    monkeypatch.setattr(Meteor, "compute_score", lambda *args: (0.5, []))
    started = []
    popen = subprocess.Popen

    class Recorded(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    assert caption_metrics(PREDICTIONS, REFERENCES)["METEOR"] == 50
    assert capfd.readouterr() == ("", "")
    assert len(started) == 3  # two tokenizers and METEOR
    assert all(process.returncode is not None for process in started)


@needs_java
def test_a_meteor_that_dies_costs_its_own_number_alone(monkeypatch, caplog):
    from pycocoevalcap.meteor.meteor import Meteor

    def die(scorer, *args):
        scorer.lock.acquire()
        scorer.meteor_p.kill()
        scorer.meteor_p.wait()
        raise ValueError("could not convert string to float")

    monkeypatch.setattr(Meteor, "compute_score", die)
    found = without_spice(caption_metrics(PREDICTIONS, REFERENCES))
    assert "METEOR" not in found and len(found) == 6
    assert "No METEOR: ValueError" in caplog.text


@pytest.fixture
def no_meteor(monkeypatch):
    """Spare the seconds that METEOR takes to load its tables."""
    monkeypatch.delitem(module.METRICS, ("METEOR",))


@needs_java
def test_the_order_of_images_does_not_matter(no_meteor):
    turned = dict(reversed(PREDICTIONS.items()))
    assert caption_metrics(turned, REFERENCES) == pytest.approx(
        caption_metrics(PREDICTIONS, REFERENCES), rel=1e-9
    )


@needs_java
def test_spice_without_its_models_warns_once_and_never_downloads(
    no_meteor, monkeypatch, caplog, tmp_path
):
    from pycocoevalcap.spice import get_stanford_models

    monkeypatch.setattr(get_stanford_models, "SPICEDIR", str(tmp_path))
    monkeypatch.setattr(
        get_stanford_models, "urlretrieve", lambda *args, **kwargs: pytest.fail("it downloads")
    )
    assert len(missing_spice_models()) == 2
    for _ in range(2):
        assert len(caption_metrics(PREDICTIONS, REFERENCES)) == 6
    assert caplog.text.count("python -m pycocoevalcap.spice.get_stanford_models") == 1
    assert str(tmp_path) in caplog.text


@pytest.fixture
def spice(no_meteor, monkeypatch):
    """SPICE with fake models and a Java that only prints its arguments."""
    from pycocoevalcap.spice import spice as package

    monkeypatch.setattr(module, "missing_spice_models", lambda: [])
    monkeypatch.setattr(package, "get_stanford_models", lambda: None)
    return package.Spice


@needs_java
def test_spice_runs_on_a_java_of_today_and_leaves_the_environment_alone(spice, monkeypatch):
    seen = []

    def compute(self, references, predictions):
        seen.append(os.environ["JDK_JAVA_OPTIONS"])
        return 0.25, []

    monkeypatch.setattr(spice, "compute_score", compute)
    monkeypatch.delenv("JDK_JAVA_OPTIONS", raising=False)
    assert caption_metrics(PREDICTIONS, REFERENCES)["SPICE"] == 25
    assert "--add-opens=java.base/java.lang=ALL-UNNAMED" in seen[0]
    assert "JDK_JAVA_OPTIONS" not in os.environ


@needs_java
def test_a_spice_that_fails_leaves_the_others_and_says_why(spice, monkeypatch, caplog):
    def fail(self, references, predictions):
        subprocess.check_call(["sh", "-c", "echo no class def found; exit 1"])

    monkeypatch.setattr(spice, "compute_score", fail)
    assert len(caption_metrics(PREDICTIONS, REFERENCES)) == 6
    assert "No SPICE: CalledProcessError" in caplog.text and "no class def found" in caplog.text


def test_without_java_there_is_one_message_and_no_number(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nowhere")
    for _ in range(2):
        assert caption_metrics(PREDICTIONS, REFERENCES) == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no java on the PATH" in caplog.text and "apt install" in caplog.text


def test_a_java_that_only_fails_gives_no_number_and_its_own_words(monkeypatch, caplog, tmp_path):
    (tmp_path / "java").write_text(
        "#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n"
    )
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert caption_metrics(PREDICTIONS, REFERENCES) == {}
    assert "Unable to locate a Java Runtime." in caplog.text


LANGUAGES = {
    "German": "Ein Mädchen führt größere Pferde über eine Brücke",
    "Vietnamese": "Một cô gái đang dắt ngựa qua cầu",
    "Russian": "Девушка ведёт большую лошадь через мост",
    "Chinese": "一个女孩牵着马过桥",
    "Japanese": "女の子が馬を連れて橋を渡っている",
    "Thai": "เด็กผู้หญิงกำลังจูงม้าข้ามสะพาน",
    "Korean": "한 소녀가 말을 끌고 다리를 건너고 있다",
    "Arabic": "فتاة تقود حصانا كبيرا عبر الجسر الطويل",
    "Hindi": "एक लड़की घोड़े को पुल के पार ले जा रही है",
}


@needs_java
def test_a_perfect_caption_is_perfect_in_any_language(no_meteor, tmp_path):
    from virtex_det.data import SentencePieceTokenizer, train_tokenizer

    train_tokenizer(LANGUAGES.values(), tmp_path / "t.model", vocab_size=180)
    tokenizer = SentencePieceTokenizer(tmp_path / "t.model")
    written = {
        language: tokenizer.decode(tokenizer.encode(caption))
        for language, caption in LANGUAGES.items()
    }
    found = caption_metrics(
        written, {language: [caption] for language, caption in LANGUAGES.items()}
    )
    assert found["BLEU_4"] == pytest.approx(100) and found["ROUGE_L"] == pytest.approx(100)


@needs_java
def test_scripts_without_spaces_are_compared_by_character(no_meteor, caplog):
    found = caption_metrics({1: "一只狗在海滩上跑"}, {1: ["一只棕色的狗在海滩上跑"]})
    assert 30 < found["BLEU_4"] < 100 and found["BLEU_1"] > 60
    assert caplog.text.count("each of its characters counts as a word") == 1


@needs_java
def test_accents_make_no_difference_on_either_side(no_meteor):
    plain = caption_metrics(
        {1: "a cafe in sao paulo at night"}, {1: ["a cafe in sao paulo by night"]}
    )
    assert (
        caption_metrics({1: "a café in São Paulo at night"}, {1: ["a cafe in são paulo by night"]})
        == plain
    )


@pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone can end a process with the one that started it"
)
def test_java_ends_when_the_run_is_killed(tmp_path):
    numbers = tmp_path / "numbers"
    os.mkfifo(numbers)
    (tmp_path / "java").write_text(f"#!/bin/sh\necho $$ > {numbers}\nexec sleep 600\n")
    (tmp_path / "java").chmod(0o755)
    program = (
        "from virtex_det.evaluation.caption_metrics import caption_metrics; caption_metrics({1: "
        "'a'}, {1: ['a']})"
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    run = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], env=environment)
    java = os.pidfd_open(int(numbers.read_text()))
    run.kill()
    run.wait()
    try:
        assert select.select([java], [], [], 60)[0], "java outlives the run"
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(java, signal.SIGKILL)
        os.close(java)
