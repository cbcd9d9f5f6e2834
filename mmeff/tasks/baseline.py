"""Simple baselines: what logistic regression on plain features reaches on the same split."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmeff.signals import DataSpec, read_raw

#: Examples in all splits beyond which no baseline is fitted: a large set is not the place of a linear model.
LARGEST = 20_000


@dataclass(frozen=True)
class Baseline:
    """A linear model's result on the test split.

    features  what it saw, in words
    score     accuracy, or mean average precision where there are several labels per example
    """

    features: str
    score: float


def fit_baseline(spec: DataSpec, splits: dict[str, Any]) -> Baseline | None:
    """Logistic regression fitted to the training split, its penalty chosen on validation, scored on test.

    splits  "train", "test" and perhaps "val": each has `items` and `labels`, (N,) or (N, K)

    Features: images, all pixels after averaging to 16 x 16; sounds, mean, deviation and maximum over time of 64
    log-mel bands; texts, TF-IDF of words and pairs of words (sublinear counts); series, statistics of each channel.
    None for a set that is too large (`LARGEST`) or that has no test split. Takes seconds to half a minute; leaves the
    global random state alone.
    """
    if "test" not in splits or sum(map(len, splits.values())) > LARGEST:
        return None
    kind = spec.kind

    # Features that a signal gives by itself, at once: a set of large images does not fit in memory.
    def kept(split: Any) -> list[Any]:
        return [kind.compact(read_raw(spec, item), **spec.preprocessing) for item in split.items]

    train = kept(splits["train"])
    featurise = kind.featurise(train)
    X, y = featurise(train), splits["train"].labels.numpy()
    models = [_fit(X, y, C) for C in kind.penalties]
    best = models[0]
    if len(models) > 1:
        validation = splits.get("val", splits["train"])
        V, labels = featurise(kept(validation)), validation.labels.numpy()
        best = max(models, key=lambda model: _score(model, V, labels))
    return Baseline(kind.features, _score(best, featurise(kept(splits["test"])), splits["test"].labels.numpy()))


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
