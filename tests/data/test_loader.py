"""The order of batches is a function of seed and epoch, and a run that was killed goes on in it."""

import itertools
import multiprocessing
import random
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from mmeff.data import Affine, ImageAugment, ImageData, JointData, ResumableLoader
from mmeff.errors import InputError

AUGMENT = ImageAugment(crop_padding=1, affine=Affine(degrees=20, translate=0.1, scale=0.1), erase=0.5)


def image_data(source, num_workers=0, batch_size=5):
    data = ImageData(source, augment=AUGMENT, batch_size=batch_size, num_workers=num_workers, seed=3)
    data.setup()
    return data


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]) if torch.is_tensor(value) else value == right[key], key


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_is_uninterrupted(images, num_workers):
    loader = image_data(images(), num_workers).train_dataloader()
    first_epoch = list(loader)
    assert len(list(itertools.islice(loader, 2))) == 2  # workers have prepared more by now
    state = loader.state_dict()
    assert (state["epoch"], state["examples"]) == (1, {"image": 10})

    resumed = image_data(images(), num_workers).train_dataloader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(resumed) == len(first_epoch) == 6 and len(rest) == 4
    straight = image_data(images()).train_dataloader()
    epochs = [list(straight) for _ in range(3)]
    for batch, expected in zip(rest, epochs[1][2:], strict=True):
        assert_same(batch, expected)
    for batch, expected in zip(resumed, epochs[2], strict=True):
        assert_same(batch, expected)


def test_augmentation_differs_between_epochs_and_examples(images):
    loader = image_data(images()).train_dataloader()
    seen = [{i: x for batch in loader for i, x in zip(batch["id"], batch["image"], strict=True)} for _ in range(2)]
    common = seen[0].keys() & seen[1].keys()
    assert common and not any(torch.equal(seen[0][i], seen[1][i]) for i in common)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_the_global_generators_alone(images, num_workers):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    loader = image_data(images(), num_workers).train_dataloader()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    assert len(list(loader)) == 6
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_a_state_at_the_end_of_an_epoch_begins_the_next(images):
    loader = image_data(images()).train_dataloader()
    list(loader)
    resumed = image_data(images()).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert (resumed.epoch, resumed.begun) == (1, False)
    assert_same(next(iter(resumed)), next(iter(loader)))


def test_an_epoch_that_was_cut_short_is_not_continued(images):
    data = image_data(images())
    loader = ResumableLoader([data.parts["image"].splits["train"]], limit=2)
    assert [len(list(loader)) for _ in range(2)] == [2, 2]
    assert len(loader) == 6
    assert (loader.epoch, loader.state_dict()["examples"]) == (1, {"image": 10})
    loader.load_state_dict(loader.state_dict())
    assert (loader.epoch, loader.begun) == (2, False)


def test_teardown_ends_the_workers(images):
    data = image_data(images(), num_workers=2)
    loader = data.train_dataloader()
    before = set(multiprocessing.active_children())
    assert len(list(loader)) == 6
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    data.teardown()
    assert not any(worker.is_alive() for worker in workers)
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


@pytest.mark.filterwarnings("ignore")
def test_overfitting_on_purpose_sees_the_same_batches(images, tmp_path):
    model = Linear()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, overfit_batches=2, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=image_data(images()))
    assert len(model.seen) == 20 and model.seen[:10] == model.seen[10:]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch(images, world):
    train = image_data(images(), batch_size=4).parts["image"].splits["train"]
    ranks = [train.batches(0, rank, world) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {train.batch_count(world)}
    flat = [i for batches in ranks for batch in batches for i in batch]
    assert len(flat) == len(set(flat)) == train.batch_count(world) * 4 * world
    assert {len(batch) for batches in ranks for batch in batches} == {4}


@pytest.mark.parametrize(
    ("n", "world", "batch_size"), [(7, 1, 3), (7, 2, 3), (5, 2, 1), (10, 3, 2), (1, 1, 64), (1, 2, 8)]
)
def test_evaluation_sees_each_example(images, n, world, batch_size):
    from dataclasses import replace

    train = image_data(images()).parts["image"].splits["train"]
    part = replace(train, train=False, ids=train.ids[:n], batch_size=batch_size)
    ranks = [list(ResumableLoader([part], rank=rank, world=world)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {part.batch_count(world)}
    assert all(0 < len(batch["id"]) <= batch_size for batches in ranks for batch in batches)
    counted = [i for batches in ranks for batch in batches if "repeated" not in batch for i in batch["id"]]
    assert sorted(counted) == sorted(part.ids)


def test_fewer_examples_than_a_batch_are_one_batch_a_rank(images):
    train = image_data(images(10), batch_size=64).parts["image"].splits["train"]
    assert len(train) == 6
    assert [len(batch) for batch in train.batches(0)] == [6]
    assert [len(batch) for rank in range(3) for batch in train.batches(0, rank, 3)] == [2, 2, 2]


def test_an_input_error_of_a_worker_keeps_its_line(write_image):
    for i in range(4):
        write_image(f"a/{i}.png"), write_image(f"b/{i}.png")
    broken = write_image("b/broken.png")
    broken.write_bytes(broken.read_bytes()[:40])
    from mmeff.data import ByRatio, ImageFolder

    data = ImageData(ImageFolder(str(broken.parents[1])), size=8, split=ByRatio(0, 0), num_workers=1)
    data.setup()
    with pytest.raises(InputError, match=r"broken\.png is not an image") as caught:
        list(data.train_dataloader())
    assert "\n" not in str(caught.value)


class Linear(pl.LightningModule):
    """Dropout and a linear map of the pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 2))
        self.seen: list[str] = []

    def training_step(self, batch, batch_idx):
        self.seen += batch["id"]
        return nn.functional.cross_entropy(self.layers(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.layers(batch["image"])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


class KeepGenerator(Callback):
    """torch's stream travels in the checkpoint."""

    state = None

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.state = checkpoint["rng"]

    def on_train_start(self, trainer, pl_module):
        if self.state is not None:
            torch.set_rng_state(self.state)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("num_workers", "step", "limit"),
    [(0, 3, 1.0), (0, 6, 1.0), (0, 9, 1.0), (2, 9, 1.0), (0, 4, 4), (0, 5, 4)],
    ids=["first epoch", "end of epoch", "second epoch", "workers", "end of a short epoch", "in a short epoch"],
)
def test_a_killed_lightning_run_ends_bit_equal(images, tmp_path: Path, num_workers, step, limit):
    def train(ckpt_path=None):
        model = Linear()
        save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=3, logger=False, callbacks=[save, KeepGenerator()], limit_train_batches=limit,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=image_data(images(), num_workers), ckpt_path=ckpt_path)
        return model, trainer.global_step

    whole, steps = train()
    resumed, resumed_steps = train(tmp_path / f"step={step}.ckpt")
    assert resumed_steps == steps == (18 if limit == 1.0 else 12)
    assert resumed.seen == whole.seen[5 * step :]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_joint_batches_resume(images, sounds):
    from mmeff.data import AudioData

    def loader():
        parts = {"a": image_data(images()), "b": AudioData(sounds(), 8000, 0.1, batch_size=2, num_workers=0)}
        data = JointData(parts, num_workers=0)
        data.setup()
        return data.train_dataloader()

    straight = loader()
    epochs = [list(straight) for _ in range(2)]
    assert [batch["task"] for batch in epochs[0]] != [batch["task"] for batch in epochs[1]]
    resumed = loader()
    resumed.load_state_dict({"epoch": 1, "batches": 5})  # as an earlier version wrote it
    for batch, expected in zip(resumed, epochs[1][5:], strict=True):
        assert_same(batch, expected)


def several(images, sounds, batch_sizes, rank=0, world=1, passes=2):
    """A loader of images (32, of which an epoch takes 30) and, twice or `passes` times, of sounds."""
    from mmeff.data import AudioData

    a, b = batch_sizes
    parts = {"a": image_data(images, batch_size=a), "b": AudioData(sounds, 8000, 0.1, batch_size=b, num_workers=0)}
    data = JointData(parts, passes={"b": passes}, num_workers=0)
    data.setup()
    train = [part.splits["train"] for part in data.parts.values()]
    return ResumableLoader(train, shuffle=True, rank=rank, world=world)


def test_an_epoch_goes_on_with_the_examples_it_has_not_seen(images, sounds):
    """Two changes within one epoch: of the batch sizes, then of the batch sizes and the number of ranks."""
    images, sounds, seen = images(), sounds(), []

    def take(loaders, n):
        batches = [list(itertools.islice(loader, n)) for loader in loaders]
        seen.extend((batch["task"], i) for own in batches for batch in own for i in batch["id"])
        assert len({str(loader.state_dict()) for loader in loaders}) == 1
        return loaders[0].state_dict()

    state = take([several(images, sounds, (5, 2))], 4)
    second = several(images, sounds, (2, 4))
    second.load_state_dict(state)
    state = take([second], 3)
    assert sum(state["examples"].values()) == len(seen)
    ranks = [several(images, sounds, (4, 1), rank, 2) for rank in range(2)]
    for loader in ranks:
        loader.load_state_dict(state)
    state = take(ranks, None)
    count = {key: seen.count(key) for key in seen}
    in_all = {part.key: len(part) for part in ranks[0].parts}
    assert set(count.values()) == {1, 2} and {count[key] for key in count if key[0] == "a"} == {1}
    assert len(seen) - sum(state["examples"].values()) <= 1  # two ranks share what is left of an odd number
    assert in_all["a"] - 8 < state["examples"]["a"] <= in_all["a"] and state["examples"]["b"] == 2 * in_all["b"]
    again = several(images, sounds, (7, 7))
    again.load_state_dict(state)
    assert (again.epoch, again.begun) == (1, False)


def test_other_examples_are_left_out_by_their_number(images):
    first = image_data(images(40)).train_dataloader()
    state = (list(itertools.islice(first, 3)), first.state_dict())[1]
    more = image_data(images(50)).train_dataloader()
    more.load_state_dict(state)
    assert more.state_dict()["examples"] == {"image": 15}
    assert len(list(more)) == (len(more.parts[0]) - 15) // 5 and len(list(more)) == len(more)
    fewer = image_data(images(15)).train_dataloader()
    fewer.load_state_dict(state)
    assert (fewer.epoch, fewer.begun) == (1, False)
