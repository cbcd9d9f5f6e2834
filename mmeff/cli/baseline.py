"""The test's result beside that of a simple model on the same split."""

from typing import Any

from mmeff.data import ClassificationData


def compare_with_baselines(data: ClassificationData, metrics: dict[str, Any]) -> list[str]:
    """A line for each task: what a simple baseline reaches, and whether the model beats it.

    metrics  of the test: "test/acc" or "test/map", with several tasks "test/TASK/acc"
    """
    from mmeff.data.baseline import fit_baseline

    lines = []
    for task, part in data.parts.items():
        found = fit_baseline(part)
        if found is None:
            continue
        name = "map" if part.spec.multilabel else "acc"
        prefix = f"{task}/" if len(data.parts) > 1 else ""
        score = float(metrics[f"test/{prefix}{name}"])
        line = f"baseline  test/{prefix}{name} {found.score:.4g}  logistic regression on {found.features}"
        if score <= found.score:
            line += (
                f". This model ({score:.4g}) does not beat it: so few examples may not be enough for a network "
                "trained from scratch. Give it more, or more epochs (--trainer.max_epochs)"
            )
        lines.append(line)
    return lines
