"""Simple baselines: what logistic regression on plain features reaches on the same split."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.data.base import Part
from mmeff.data.loader import Signals
from mmeff.data.raw import read_raw

#: Examples in all splits beyond which no baseline is fitted: a large set is not the place of a linear model.
LARGEST = 20_000

#: Inverse strengths of the penalty, of which the validation split chooses one, weakest last.
PENALTIES = {"image": (1e-3, 1e-2, 1e-1), "audio": (1e-2, 1e-1, 1.0), "text": (10.0,)}

FEATURES = {
    "image": "pixels at 16 x 16",
    "audio": "log-mel statistics",
    "text": "TF-IDF of words and pairs of words",
}


@dataclass(frozen=True)
class Baseline:
    """A linear model's result on the test split.

    features  what it saw, in words
    score     accuracy, or mean average precision where there are several labels per example
    """

    features: str
    score: float


def fit_baseline(part: Part) -> Baseline | None:
    """Logistic regression fitted to the training split, its penalty chosen on validation, scored on test.

    Features: images, all pixels after averaging to 16 x 16; sounds, mean, deviation and maximum over time of 64
    log-mel bands; texts, TF-IDF of words and pairs of words (sublinear counts). None for a set that is too large
    (`LARGEST`) or that has no test split. Takes seconds to half a minute; leaves the global random state alone.
    """
    splits = part.splits
    if "test" not in splits or sum(map(len, splits.values())) > LARGEST:
        return None
    train, test = _Examples.of(part, splits["train"]), _Examples.of(part, splits["test"])
    validation = _Examples.of(part, splits["val"]) if "val" in splits else train
    featurise = _text_features(train.raws) if part.spec.modality == "text" else _dense_features(part, train.raws)
    X, y = featurise(train.raws), train.labels
    penalties = PENALTIES[part.spec.modality]
    models = [_fit(X, y, C) for C in penalties]
    best = models[0]
    if len(models) > 1:
        V = featurise(validation.raws)
        best = max(models, key=lambda model: _score(model, V, validation.labels))
    score = _score(best, featurise(test.raws), test.labels)
    return Baseline(FEATURES[part.spec.modality], score)


@dataclass(frozen=True)
class _Examples:
    raws: list[Any]
    labels: np.ndarray  # (N,) or (N, K)

    @classmethod
    def of(cls, part: Part, signals: Signals) -> "_Examples":
        raws = [_compact(part, read_raw(part.spec, item)) for item in signals.items]
        return cls(raws, signals.labels.numpy())


def _compact(part: Part, raw: Any) -> Any:
    """Features that one signal gives by itself, at once: a set of large images does not fit in memory."""
    if part.spec.modality == "image":
        return F.interpolate(raw[None], (16, 16), mode="area").flatten().numpy()
    if part.spec.modality == "audio":
        return _log_mel_statistics(raw, part.spec.preprocessing["sample_rate"])
    return raw


def _log_mel_statistics(wave: Tensor, rate: int) -> np.ndarray:
    """Mean, deviation and maximum over time of 64 log-mel bands: (192,)."""
    from torchaudio.functional import melscale_fbanks

    window = max(16, round(0.025 * rate))
    size = 2 ** (2 * window - 1).bit_length()
    wave = F.pad(wave, (0, max(0, size - len(wave))))
    power = torch.stft(wave, size, window // 2, window, torch.hann_window(window), return_complex=True).abs().square()
    bands = melscale_fbanks(size // 2 + 1, 0.0, rate / 2, 64, rate)
    log_mel = (power.T @ bands).clamp_min(1e-8).log()  # (T, 64)
    return torch.cat([log_mel.mean(0), log_mel.std(0, correction=0), log_mel.amax(0)]).numpy()


def _dense_features(part: Part, raws: list[np.ndarray]) -> Callable[[list[np.ndarray]], np.ndarray]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(np.stack(raws))
    return lambda rows: np.asarray(scaler.transform(np.stack(rows)))


def _text_features(texts: list[str]) -> Callable[[list[str]], Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Words of one letter and of no letters count too: a text of digits or of ideographs is no empty one.
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    vectoriser.fit(texts)
    return vectoriser.transform


def _fit(X: Any, y: np.ndarray, C: float) -> Any:
    from scipy.sparse import issparse
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    if issparse(X):  # one class against the rest by coordinates: a tenth of the time, and no worse
        model: Any = OneVsRestClassifier(LogisticRegression(C=C, solver="liblinear", dual=True, random_state=0))
    else:
        model = LogisticRegression(C=C, max_iter=200, tol=1e-3)
        model = OneVsRestClassifier(model) if y.ndim == 2 else model
    with warnings.catch_warnings():
        # A fit that was stopped early is a baseline all the same, and some labels are on every example or on none.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        return model.fit(X, y)


def _score(model: Any, X: Any, y: np.ndarray) -> float:
    """Accuracy, or mean average precision over the labels that occur."""
    if y.ndim == 1:
        return float(model.score(X, y))
    from sklearn.metrics import average_precision_score

    occurs = y.any(0)
    return float(average_precision_score(y[:, occurs], model.predict_proba(X)[:, occurs], average="macro"))
