"""Options that cannot be meant: a new public class is walked here without a new test."""

import inspect
import math
import os
import typing
from collections.abc import Callable
from functools import partial
from types import ModuleType, UnionType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmeff import backbones, data, feedforward, heads, mixers, tasks, tokenizers
from mmeff.errors import InputError, spelled, whole, within
from mmeff.signals import DataSpec
from mmeff.signals.audio import read_audio
from mmeff.signals.image import read_image
from mmeff.signals.series import read_series
from mmeff.tokens import Tokens

#: Not numbers, numbers that are no integers, and numbers far beyond all defaults.
ABSURD = (0, -1, -0.5, 1.5, 33, math.nan, math.inf, -math.inf, True, "3")
PACKAGES: tuple[ModuleType, ...] = (tokenizers, mixers, feedforward, backbones, heads, data, tasks)
#: Options of the loaders, which have tests of their own.
ELSEWHERE = {"seed", "num_workers"}
#: Classes that nobody configures, that only others inherit from, or whose numbers are columns of a user's file.
OTHERS = (tasks.Classification, data.ResumableLoader, data.Signals, data.FileTable, data.TextTable)
SPEC = {
    "image": {"size": [16, 16], "channels": 3},
    "audio": {"sample_rate": 16000, "samples": 4000},
    "text": {},
    "series": {"channels": 1, "steps": 40, "columns": []},
}
RAW: dict[str, Any] = {
    "image": torch.rand(2, 3, 16, 16),
    "audio": torch.rand(2, 4000) - 0.5,
    "text": ["some words", "and more"],
    "series": torch.randn(2, 40, 1),
}
SMALL = partial(backbones.Isotropic, 8, 1)


class Given(data.Source):
    def __init__(self, signal: str):
        rng = np.random.default_rng(0)
        items = {
            "image": list(rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)),
            "audio": [(rng.uniform(-0.5, 0.5, 4000).astype(np.float32), 16000) for _ in range(40)],
            "text": [f"text {i}" for i in range(40)],
            "series": list(rng.normal(size=(40, 30, 2)).astype(np.float32)),
        }
        ids, groups = [str(i) for i in range(40)], [str(i // 4) for i in range(40)]
        self.given = data.Examples(items[signal], ["a", "b"] * 20, ids, group=groups)

    def examples(self) -> data.Examples:
        return self.given


def tokens(dim: Any, grid: tuple[int, ...] = (4, 4)) -> Tokens:
    return Tokens(torch.randn(2, math.prod(grid), dim, requires_grad=True), grid)


def use_tokenizer(cls: Any, **options: Any) -> Tensor:
    tokenizer = cls(**{"dim": 16, **options})
    tokenizer.check(SPEC[tokenizer.signal])
    tokenizer.fit(list(RAW[tokenizer.signal]))
    return tokenizer(RAW[tokenizer.signal]).x


def use_spectrogram(cls: Any, **options: Any) -> Tensor:
    if cls is tokenizers.SpecAugment:
        return cls(**options)(torch.randn(2, 26, 80, requires_grad=True), torch.tensor([26, 26]))
    module = cls(**options)
    module.check(SPEC["audio"])
    return module(RAW["audio"].requires_grad_(), torch.tensor([4000, 4000]))[0]


def use_mixer(cls: Any, **options: Any) -> Tensor:
    more = {"mixers": [mixers.Attention]} if cls is mixers.Parallel else {}
    more |= {"local": False} if "causal" in options else {}
    module = cls(**{"dim": 16, **more, **options})
    x = tokens(options.get("dim", 16))
    return module(x.x, x.grid)


def use_channel_mixer(cls: Any, **options: Any) -> Tensor:
    module = cls(**{"dim": 16, **options})
    y = module(tokens(options.get("dim", 16)).x)
    return y if module.aux_loss is None else y + module.aux_loss


def use_backbone(cls: Any, **options: Any) -> Tensor:
    if cls is backbones.Block:
        dim = options.get("dim", 16)
        block = cls(**{"dim": dim, "mixer": mixers.Attention(dim), "channel": None, **options})
        return block(tokens(dim).x, None, (4, 4))[1]
    small = {"dim": 8, "depth": 2} if cls is backbones.Isotropic else {"dims": [8, 16], "depths": [1, 1]}
    module = cls(**{**small, **options})
    return module(tokens(module.in_dim)).x


def use_positions(cls: Any, **options: Any) -> Tensor:
    return cls(**{"dim": 16, **options})(tokens(options.get("dim", 16))).x


def use_head(cls: Any, **options: Any) -> Tensor:
    more = {"classes": 3} if cls is heads.Head else {}
    return cls(**{"dim": 16, **more, **options})(tokens(options.get("dim", 16)))


def use_mix(cls: Any, **options: Any) -> Tensor:
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    raw, _, label = cls(**{"mixup": 0.5, "cutmix": 0.5, **options})(images, None, torch.tensor([0, 1, 0, 1]), 2, 0.0)
    return raw.mean() + label.mean()


def use_optimizer(cls: Any, **options: Any) -> Tensor:
    layers = [torch.nn.Linear(4, 4) for _ in range(3)]
    optimizer, schedule = cls(**options).build([[layer] for layer in layers], 10)
    for _ in range(2):
        torch.nn.Sequential(*layers)(torch.ones(1, 4)).square().sum().backward()
        optimizer.step()
        schedule.step()
    return torch.nn.Sequential(*layers)(torch.ones(1, 4))


def use_task(cls: Any, **options: Any) -> Tensor:
    first = {"tokenizer": tokenizers.TextBytes}
    if cls is tasks.JointClassify:
        first = {"tokenizers": {"text": tokenizers.TextBytes}}
    model = cls(**first, backbone=SMALL(), **options)
    model.prepare({"text": DataSpec("text", ("a", "b"))})
    model.log = lambda *args, **more: None
    return model.training_step({"task": "text", "text": RAW["text"], "label": torch.tensor([0, 1])}, 0)


def use_data(cls: Any, **options: Any) -> Tensor:
    if cls is data.JointData:
        options = {name: {"a": value} for name, value in options.items()}
        module = cls({"a": data.ImageData(Given("image"))}, **options)
    else:
        module = cls(Given(cls.__name__.removesuffix("Data").lower()), **options)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    return torch.stack([value.float().mean() for value in batch.values() if isinstance(value, Tensor)])


def use_split(cls: Any, **options: Any) -> Tensor:
    return torch.tensor([len(rows) for rows in cls(**options).divide(Given("text").given).values()])


def use_downsampler(cls: Any, dim: int = 8, out_dim: int = 8) -> Tensor:
    return cls(dim, out_dim)(tokens(dim)).x


def use_augmentation(cls: Any, **options: Any) -> Tensor:
    rng, change = np.random.default_rng(0), cls(**options)
    if cls is data.AudioAugment:
        return read_audio((rng.uniform(-0.5, 0.5, 4000), 16000), 16000, 4000, change)
    if cls is data.SeriesAugment:
        return read_series(rng.normal(size=(30, 2)), 2, 20, augment=change)
    change = data.ImageAugment(affine=change) if cls is data.Affine else change
    return read_image(rng.integers(0, 256, (8, 8), dtype=np.uint8), (8, 8), 1, change)


#: How each kind of class is put to use: something of it that must be finite, as are its gradients.
USES: dict[Any, Callable[..., Tensor]] = {
    tokenizers.Tokenizer: use_tokenizer,
    (tokenizers.LogMel, tokenizers.SpecAugment): use_spectrogram,
    tokenizers.Positions: use_positions,
    mixers.Mixer: use_mixer,
    feedforward.ChannelMixer: use_channel_mixer,
    (backbones.Backbone, backbones.Block): use_backbone,
    backbones.Downsampler: use_downsampler,
    (heads.Pool, heads.Head): use_head,
    tasks.Mix: use_mix,
    tasks.OptimizerConfig: use_optimizer,
    tasks.Classification: use_task,
    data.ClassificationData: use_data,
    data.SplitRule: use_split,
    (data.Affine, data.ImageAugment, data.AudioAugment, data.SeriesAugment): use_augmentation,
}


def leaves(hint: Any) -> set[Any]:
    """The types that a hint is made of; those of a callable are not its own."""
    inner = typing.get_args(hint)
    if not inner or typing.get_origin(hint) in (typing.Literal, Callable):
        return {hint}
    return set().union(*map(leaves, inner))


def numeric_options() -> dict[str, tuple[type, str, Any]]:
    """(class, name of an option, its default or, for a list of numbers without one, two places) of all classes."""
    found = {}
    for package in PACKAGES:
        names = getattr(package, "__all__", None) or [name for name in vars(package) if name[0].isupper()]
        for cls in (getattr(package, name) for name in names):
            own = inspect.isclass(cls) and cls.__module__.startswith("mmeff") and not inspect.isabstract(cls)
            if not own or cls in OTHERS:
                continue
            hints = typing.get_type_hints(cls.__init__)
            for name, parameter in inspect.signature(cls).parameters.items():
                hint = hints.get(name)
                if leaves(hint) & {int, float} and name not in ELSEWHERE:
                    members = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
                    plain = int in members or float in members or dict in map(typing.get_origin, members)
                    found[f"{cls.__name__}.{name}"] = cls, name, None if plain else parameter.default or [0, 0]
    return found


OPTIONS = numeric_options()


@pytest.mark.parametrize("option", OPTIONS)
def test_an_absurd_value_is_refused_by_name_or_works(option: str) -> None:
    cls, name, default = OPTIONS[option]
    (use,) = (use for bases, use in USES.items() if issubclass(cls, bases))
    for value in ABSURD:
        for given in [value] if default is None else [[value] * len(default), [*default[:-1], value]]:
            torch.manual_seed(0)
            try:
                result = use(cls, **{name: given})
            except ValueError as error:
                assert name.replace("_", " ") in str(error).replace("_", " "), f"{given!r}: {error}"
            else:
                assert result.isfinite().all(), given
                if result.requires_grad:
                    result.square().mean().backward()


def test_every_kind_of_class_is_walked() -> None:
    walked = {cls for cls, _, _ in OPTIONS.values()}
    assert len(OPTIONS) > 120
    assert all(any(issubclass(cls, bases) for cls in walked) for bases in USES)


def test_the_sentences() -> None:
    whole(1, depth=3, dims=[1, np.int64(2)])
    within("[0, 1)", smoothing=0, betas=(0.5, np.float32(0.1)))
    for check, message in (
        (lambda: whole(1, depth=0), "depth is 0; it must be a whole number of at least 1"),
        (lambda: whole(1, depth=True), "depth is True; it must be a whole number of at least 1"),
        (lambda: whole(1, a=1, dims=[4, 2.0]), "dims is [4, 2.0]; each entry must be a whole number of at least 1"),
        (lambda: whole(1, dims=[]), "dims is []; each entry must be a whole number of at least 1"),
        (lambda: within("[0, 1)", smoothing=1), "smoothing is 1; it must be in [0, 1)"),
        (lambda: within("(0, inf)", ratio=math.inf), "ratio is inf; it must be in (0, inf)"),
        (lambda: within("(0, 1]", area=(0.0, 1.0)), "area is (0.0, 1.0); each entry must be in (0, 1]"),
        (lambda: within("[0, 1]", share=math.nan), "share is nan; it must be in [0, 1]"),
    ):
        with pytest.raises(InputError) as caught:
            check()
        assert str(caught.value) == message


def test_paths_are_one_line_of_text() -> None:
    assert spelled("a b/狗.png") == "a b/狗.png"
    assert spelled(os.fsdecode(b"caf\xe9.wav")) == "caf\\xe9.wav"
    assert spelled("a\nb\x1b[31m.png") == "a\\nb\\x1b[31m.png"


def test_raw_batches_of_another_kind_are_refused() -> None:
    image, sound = tokenizers.ImagePatches(16), tokenizers.AudioFrames(16)
    pixels, wave = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, 4000)
    for use, message in (
        (lambda: image(pixels), r"raw batch is torch.uint8 \(2, 3, 16, 16\); .* floating-point .* in \[0, 1\]"),
        (lambda: tokenizers.ImageStem(16)(pixels.bool()), "raw batch is torch.bool"),
        (lambda: image(pixels[0].float()), r"raw batch is torch.float32 \(3, 16, 16\)"),
        (lambda: image([1, 2]), "raw batch is list"),
        (lambda: sound(wave.short()), "raw batch is torch.int16"),
        (lambda: tokenizers.AudioWave(16)(wave.int()), "raw batch is torch.int32"),
        (lambda: tokenizers.AudioPatches(16)(wave[None]), r"raw batch is torch.float32 \(1, 2, 4000\)"),
        (lambda: sound(wave, torch.tensor([1.0, 0.5])), "lengths are torch.float32"),
        (lambda: sound(wave, torch.tensor([4000])), r"lengths are torch.int64 \(1,\) beside sounds \(2, 4000\)"),
        (lambda: tokenizers.TextBytes(16)("a text"), "raw batch is a str; it must be a list of strings"),
        (lambda: tokenizers.TextBytes(16)([]), "list of strings, one or more"),
        (lambda: tokenizers.TextBytes(16)(torch.zeros(2, 3)), r"ids of a batch are torch.float32 \(2, 3\)"),
        (lambda: tokenizers.TextBytes(16)(["a", 3]), r"list of \['int', 'str'\]"),
    ):
        with pytest.raises(InputError, match=message):
            use()
