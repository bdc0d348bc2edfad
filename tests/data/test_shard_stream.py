from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from virtex_det import get_cfg
from virtex_det.data import build_train_loader
from virtex_det.data.build import check_train_loader
from virtex_det.data.datasets.shards import NOT_WHOLE, captions_of_some
from virtex_det.errors import UserError

BATCH = 2
COUNTS = (5, 7, 3, 6)


@pytest.fixture
def shards(tmp_path, write_shard):
    """Four shards of 5, 7, 3 and 6 samples."""
    for shard, count in enumerate(COUNTS):
        write_shard(tmp_path / f"{shard}.tar", count)
    return tmp_path


@pytest.fixture
def cfg(shards, tokenizer_file):
    cfg = get_cfg()
    cfg.merge_from_list(["SEED", 3, "SOLVER.IMS_PER_BATCH", BATCH, "DATALOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["DATALOADER.MAPPER", "CaptionMapper", "MODEL.TEXTUAL.VOCAB_SIZE", 60])
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CAPTION.CROP_SIZE, cfg.INPUT.CAPTION.TOKENIZER = 8, str(tokenizer_file)
    cfg.DATASETS.TRAIN = (f"shards:{shards}/{{0..3}}.tar",)
    return cfg


def examples(cfg, batches, start_iter=0):
    return list(islice(build_train_loader(cfg, start_iter), batches))


def ids(batches):
    return [example["image_id"] for batch in batches for example in batch]


def all_ids():
    return sorted(
        f"{shard}_{number}" for shard, count in enumerate(COUNTS) for number in range(count)
    )


def assert_same(batches, others):
    assert ids(batches) == ids(others)
    for batch, other in zip(batches, others, strict=True):
        for a, b in zip(batch, other, strict=True):
            assert torch.equal(a["image"], b["image"]) and torch.equal(
                a["caption_tokens"], b["caption_tokens"]
            )


def as_rank(monkeypatch, rank, processes):
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: rank)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: processes)


def test_each_epoch_has_each_sample_once_in_another_order(cfg):
    cfg.SOLVER.IMS_PER_BATCH = sum(COUNTS)
    epochs = [ids([batch]) for batch in examples(cfg, 3)]
    assert all(sorted(epoch) == all_ids() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    shards = [list(dict.fromkeys(name[0] for name in epoch)) for epoch in epochs]
    assert len(set(map(tuple, shards))) > 1


def test_samples_are_shuffled_within_their_shard(cfg):
    cfg.SOLVER.IMS_PER_BATCH = sum(COUNTS)
    (epoch,) = examples(cfg, 1)
    assert ids([epoch]) != sorted(ids([epoch]))
    cfg.DATALOADER.SHARD_SHUFFLE_SIZE = 1
    of_one = [name for name in ids(examples(cfg, 1)) if name.startswith("1_")]
    assert of_one == sorted(of_one)


def test_processes_and_workers_share_the_shards_out(cfg, monkeypatch):
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 4, "DATALOADER.NUM_WORKERS", 2])
    seen = []
    for rank in (0, 1):
        as_rank(monkeypatch, rank, 2)
        # Batches come from the two workers in turn; neither has more than 7 samples in its epoch.
        seen.append({name[0] for name in ids(examples(cfg, 2))})
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 4


def test_an_image_is_augmented_anew_in_each_epoch(cfg):
    cfg.SOLVER.IMS_PER_BATCH = sum(COUNTS)
    first, second = ({e["image_id"]: e["image"] for e in batch} for batch in examples(cfg, 2))
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_a_seed_fixes_order_and_pixels_and_another_changes_them(cfg):
    first = examples(cfg, 6)
    np.random.seed(1)
    assert_same(examples(cfg, 6), first)
    cfg.SEED = 4
    assert ids(examples(cfg, 6)) != ids(first)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 4, 11, 30])
def test_a_resumed_run_continues_with_the_next_batch(cfg, workers, start):
    cfg.DATALOADER.NUM_WORKERS = workers
    assert_same(examples(cfg, 3, start), examples(cfg, start + 3)[start:])


def test_a_resumed_process_of_several_goes_on_with_its_own_batch(cfg, monkeypatch):
    as_rank(monkeypatch, 1, 2)
    cfg.SOLVER.IMS_PER_BATCH = 4
    assert_same(examples(cfg, 3, 9), examples(cfg, 12)[9:])


def test_words_that_the_tokenizer_does_not_know_are_found_before_a_run(
    cfg, shards, write_shard, caplog
):
    def write(shard, caption):
        count = COUNTS[shard]
        texts = dict.fromkeys(range(count), {"txt": caption.encode()})
        write_shard(shards / f"{shard}.tar", count, texts)

    for shard in range(4):
        write(shard, "a small red star")
    check_train_loader(cfg)
    assert "does not know" not in caplog.text
    write(1, "звезда")
    check_train_loader(cfg)
    assert "shards:" in caplog.text and "of the words in captions, e.g. 'звезда'" in caplog.text
    for shard in range(4):
        write(shard, "звезда")
    with pytest.raises(UserError, match="does not know 100% of the words"):
        check_train_loader(cfg)


def test_shards_with_fewer_captions_than_a_step_asks_for_are_found_before_a_run(cfg):
    cfg.INPUT.CAPTION.PER_IMAGE = 5
    with pytest.raises(
        UserError, match="but none of 21 samples that were read of shards:.* has mo"
    ):
        check_train_loader(cfg)


def test_a_look_at_shards_reads_the_beginnings_of_a_few(tmp_path, write_shard):
    files = [str(write_shard(tmp_path / f"{shard:02}.tar", 40)) for shard in range(25)]
    Path(files[0]).write_bytes(b"no tar file")
    found = [sample["image_id"] for sample in captions_of_some(files)]
    assert found == [f"{shard:02}_{number}" for shard in range(3, 25, 3) for number in range(30)]


def test_a_resumed_run_reads_none_of_the_shards_that_it_skips_where_their_counts_are_known(
    cfg, shards, monkeypatch
):
    from virtex_det.data.datasets.shards import Shard

    for shard, count in enumerate(COUNTS):
        (shards / f"{shard}_stats.json").write_text(f'{{"successes": {count}}}')
    whole = examples(cfg, 34)
    read, files = [], Shard._files
    monkeypatch.setattr(
        Shard, "_files", lambda self, contents: read.append(self.path) or files(self, contents)
    )
    assert_same(examples(cfg, 1, 33), whole[33:])
    assert len(read) <= 2


def test_what_cannot_be_used_gives_its_place_to_the_next_sample_and_is_reported(
    cfg, shards, write_shard
):
    changes = {0: {"jpg": b"broken"}, 2: {"txt": b" "}, 3: {"jpg": None}}
    path = write_shard(shards / "1.tar", COUNTS[1], changes)
    cfg.SOLVER.IMS_PER_BATCH = sum(COUNTS)
    loader = build_train_loader(cfg)
    epochs = [ids([batch]) for batch in islice(loader, 3)]
    unusable = {"1_0", "1_2", "1_3"}
    for epoch in epochs[1:]:
        assert set(all_ids()) - unusable <= set(epoch) and not unusable & set(epoch)
    assert loader.report() == {
        "image cannot be read": [f"{path}/1_0.jpg"],
        "sample without caption": [f"{path}/1_2.jpg"],
        "sample without image": [f"{path}/1_3"],
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_exact_with_broken_samples_and_a_shard_cut_short(
    cfg, shards, write_shard, workers
):
    write_shard(
        shards / "1.tar", COUNTS[1], {0: {"jpg": b"broken"}, 5: {"jpg": b"broken"}, 6: {"txt": b""}}
    )
    whole = (shards / "3.tar").read_bytes()
    (shards / "3.tar").write_bytes(whole[: len(whole) // 2])
    (shards / "3_stats.json").write_text(f'{{"successes": {COUNTS[3]}}}')
    cfg.DATALOADER.NUM_WORKERS = workers
    batches = examples(cfg, 30)
    for start in (3, 7, 12, 25):
        assert_same(examples(cfg, 4, start), batches[start : start + 4])


def test_a_shard_cut_short_is_used_as_far_as_it_goes_and_reported(cfg, shards):
    path = shards / "3.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cfg.SOLVER.IMS_PER_BATCH = 5
    loader = build_train_loader(cfg)
    seen = {name for name in ids(islice(loader, 12)) if name.startswith("3_")}
    assert 0 < len(seen) < COUNTS[3]
    assert loader.report()[f"shard {NOT_WHOLE}"] == [str(path)]


def test_a_wrong_count_of_img2dataset_is_reported(cfg, shards):
    (shards / "0_stats.json").write_text('{"successes": 50}')
    loader = build_train_loader(cfg)
    list(islice(loader, 14))
    assert loader.report() == {
        "has another number of samples than its shard: delete it": [f"{shards}/0_stats.json"]
    }


def test_a_fraction_is_the_same_samples_in_each_epoch_and_resumes_exactly(cfg):
    cfg.DATASETS.TRAIN_FRACTION = 0.5
    batches = examples(cfg, 40)
    kept = set(ids(batches[:20]))
    assert kept == set(ids(batches[20:])) and 4 < len(kept) < 17
    assert_same(examples(cfg, 3, 17), batches[17:20])
    cfg.DATASETS.SUBSET_SEED = 1
    assert set(ids(examples(cfg, 20))) != kept


def test_captions_per_image_are_chosen_of_shards_too(cfg, shards, write_shard):
    both = {"txt": None, "json": b'{"captions": ["a small red star", "a big blue circle"]}'}
    for shard in range(4):
        write_shard(shards / f"{shard}.tar", 1, {0: both})
    cfg.INPUT.CAPTION.FLIP_PROB = 0.0

    def texts():
        return {
            tuple(example["caption_tokens"].tolist())
            for batch in examples(cfg, 30)
            for example in batch
        }

    assert len(texts()) == 2
    cfg.DATASETS.CAPTIONS_PER_IMAGE = 1
    by_image = {}
    for batch in examples(cfg, 30):
        for example in batch:
            by_image.setdefault(example["image_id"], set()).add(
                tuple(example["caption_tokens"].tolist())
            )
    assert all(len(texts_of_one) == 1 for texts_of_one in by_image.values())


def test_several_patterns_are_one_stream(cfg, shards):
    cfg.DATASETS.TRAIN = (f"shards:{shards}/{{0..1}}.tar", f"shards:{shards}/{{2..3}}.tar")
    cfg.SOLVER.IMS_PER_BATCH = sum(COUNTS)
    assert sorted(ids(examples(cfg, 1))) == all_ids()


def test_shards_beside_lists_are_an_error(cfg):
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, "coco_2017_train_captions")
    with pytest.raises(UserError, match="shards only or on lists only"):
        build_train_loader(cfg)


@pytest.mark.parametrize(
    ("processes", "workers", "advice"),
    [(2, 3, "DATALOADER.NUM_WORKERS 2"), (5, 0, "fewer processes")],
)
def test_fewer_shards_than_readers_are_an_error_that_says_what_to_set(
    cfg, monkeypatch, processes, workers, advice
):
    monkeypatch.setattr("virtex_det.data.build._available_cores", lambda: 8)
    as_rank(monkeypatch, 0, processes)
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 10, "DATALOADER.NUM_WORKERS", workers])
    with pytest.raises(UserError, match=f"4 shards for {processes} processes(?s:.*){advice}"):
        build_train_loader(cfg)


@pytest.mark.parametrize("start", [0, 5])
def test_shards_without_any_sample_are_an_error(cfg, shards, start):
    for path in shards.glob("*.tar"):
        path.write_bytes(bytes(1024))
    with pytest.raises(
        UserError, match=r"no shard under DATASETS.TRAIN .*4 shards(?s:.*)\.jpg \.jpeg \.png \.webp"
    ):
        examples(cfg, 1, start)


def test_shards_of_broken_images_end_the_run(cfg, shards, write_shard):
    for path in shards.glob("*.tar"):
        write_shard(path, 30, {number: {"jpg": b"broken"} for number in range(30)})
    cfg.DATALOADER.NUM_WORKERS = 1
    with pytest.raises(UserError, match="^100 images in a row cannot be used"):
        examples(cfg, 1)


def test_shards_whose_samples_are_apart_end_the_run_with_what_to_do(cfg, shards, photo):
    import io
    import tarfile

    for path in shards.glob("*.tar"):
        with tarfile.open(path, "w") as tar:
            for suffix in ("jpg", "txt"):
                for number in range(30):
                    content = photo.read_bytes() if suffix == "jpg" else b"a star"
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    with pytest.raises(
        UserError, match=r"100 images in a row cannot be used(?s:.*)tar --sort=name"
    ):
        examples(cfg, 1)
