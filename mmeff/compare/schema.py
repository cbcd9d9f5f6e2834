"""What a comparison measures: one row for each contender at one length."""

from dataclasses import dataclass

from mmeff import signals


@dataclass(frozen=True)
class Row:
    """One contender at one length; None where a value was not measured."""

    #: Name of the recipe, as "digits".
    recipe: str
    #: Kind of signal, as "image".
    signal: str
    #: Name of a backbone, of a timm model, or "transformer".
    backbone: str
    #: "mmeff" or "baseline".
    kind: str
    #: In `unit`: side of the image in pixels, seconds of sound, tokens of text, steps of series.
    length: float
    unit: str
    #: That the backbone meets.
    tokens: int | None = None
    #: Width and depth after matching the budget; of a pyramid those of the first stage and of all stages.
    dim: int | None = None
    depth: int | None = None
    parameters: int | None = None
    #: Examples at once, where throughput and memory were measured.
    batch: int | None = None
    #: Optimiser steps of each training, and how many trainings.
    steps: int | None = None
    seeds: int | None = None
    #: On the test split, 0 to 1: mean over the seeds, and largest less smallest.
    accuracy: float | None = None
    accuracy_spread: float | None = None
    #: Examples of the test split.
    tested: int | None = None
    #: Wall time of one training, mean over the seeds.
    train_seconds: float | None = None
    #: Of one example; MACs are half the operations of the products.
    forward_flops: int | None = None
    forward_macs: int | None = None
    training_flops: int | None = None
    #: Least bytes that one forward pass of one example moves: weights and activations where operators begin and end.
    bytes_moved: int | None = None
    #: Of the recurrent states of all layers for one example; None where no mixer has one.
    state_bytes: int | None = None
    #: Examples a second: median and quartiles.
    inference: float | None = None
    inference_low: float | None = None
    inference_high: float | None = None
    training: float | None = None
    training_low: float | None = None
    training_high: float | None = None
    #: Milliseconds of one forward pass of one example: median and 95th percentile.
    latency_p50: float | None = None
    latency_p95: float | None = None
    #: MiB at the peak of a training step, and of a forward pass without gradients.
    memory: float | None = None
    inference_memory: float | None = None
    #: Joules an example in training, where the device counts its energy.
    joules: float | None = None
    #: Least length at which a training step of one example no longer fits; None: not met, or not looked for.
    memory_ends_at: float | None = None
    #: One line, for a contender that failed.
    error: str | None = None


def signal_rate(row: Row, examples_per_second: float) -> tuple[float, str]:
    """Examples a second in the signal's own measure: images, seconds of audio, or tokens a second."""
    kind = signals.of(row.signal)
    return examples_per_second * (row.length if kind.by_length else 1), kind.rate
