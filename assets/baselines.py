"""Accuracy of logistic regression on the embedded data, as README.md quotes it: python assets/baselines.py

Fitted to the training split; the penalty C is the best of a few on the validation split.
About a minute on two CPU cores.
"""

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torchaudio.transforms import MelSpectrogram

from mmeff.data.embedded import RATE, Digits, Glosses, Tones
from mmeff.data.examples import Examples
from mmeff.data.series import Vowels


def pixels(images: list[np.ndarray]) -> np.ndarray:
    """(N, 784) in [0, 1]."""
    return np.stack(images).reshape(len(images), -1) / 255


def log_mels(clips: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """(N, 80 bands * 31 frames) of the first 0.3 s: windows of 25 ms every 10 ms."""
    waves = torch.zeros(len(clips), int(0.3 * RATE))
    for row, (wave, _) in zip(waves, clips, strict=True):
        row[: len(wave)] = torch.from_numpy(wave[: len(row)])
    mels = MelSpectrogram(RATE, n_fft=400, hop_length=160, n_mels=80)(waves)
    return (mels + 1e-5).log().flatten(1).numpy()


def lengths(clips: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """(N, 1) seconds: what the length alone tells."""
    return np.array([[len(wave) / rate] for wave, rate in clips])


def statistics(series: list[np.ndarray]) -> np.ndarray:
    """(N, 48): mean, deviation, least and greatest value of each channel."""
    return np.stack([np.concatenate([x.mean(0), x.std(0), x.min(0), x.max(0)]) for x in series])


def spread(series: list[np.ndarray]) -> np.ndarray:
    """(N, 16 * 12): the values at 16 steps spread evenly over each series."""
    return np.stack([x[np.linspace(0, len(x) - 1, 16).round().astype(int)].ravel() for x in series])


def report(name: str, examples: Examples, features: Pipeline, penalties: list[float]) -> None:
    part = {split: [i for i, s in enumerate(examples.split or []) if s == split] for split in ("train", "val", "test")}
    x = {split: [examples.items[i] for i in indices] for split, indices in part.items()}
    y = {split: [examples.labels[i] for i in indices] for split, indices in part.items()}
    x = {
        "train": features.fit_transform(x["train"]),
        "val": features.transform(x["val"]),
        "test": features.transform(x["test"]),
    }
    models = [LogisticRegression(C=c, max_iter=1000).fit(x["train"], y["train"]) for c in penalties]
    best = max(models, key=lambda model: model.score(x["val"], y["val"]))
    scores = ", ".join(f"{split} {100 * best.score(x[split], y[split]):.1f} %" for split in ("val", "test"))
    print(f"{name}: {scores} (C = {best.C:g})", flush=True)


def main() -> None:
    sound = make_pipeline(FunctionTransformer(log_mels), StandardScaler())
    report("digits, pixels", Digits().examples(), make_pipeline(FunctionTransformer(pixels)), [0.01, 0.1, 1])
    report("tones, log-mel", Tones().examples(), sound, [1e-4, 1e-3, 1e-2])
    report("tones, length alone", Tones().examples(), make_pipeline(FunctionTransformer(lengths)), [1, 100])
    report("initials, log-mel", Tones("initial").examples(), sound, [1e-3, 1e-2, 1e-1])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    for features in (statistics, spread):
        pipeline = make_pipeline(FunctionTransformer(features), StandardScaler())
        report(f"vowels, {features.__name__}", Vowels().examples(), pipeline, [1e-2, 1e-1, 1, 10])
    report("glosses, TF-IDF of 1 and 2 words", Glosses().examples(), make_pipeline(words), [10, 30, 100])


if __name__ == "__main__":
    main()
