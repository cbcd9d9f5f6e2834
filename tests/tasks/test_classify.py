from typing import Any

import pytest
import torch

from mmeff.signals import DataSpec
from mmeff.tasks import Classification


def test_metrics_that_agree_on_the_first_batch_go_apart_on_the_second():
    collection = Classification.metrics(Any, DataSpec("image", [f"{k}" for k in range(8)], False, {}))
    logits = torch.eye(8)
    collection.update(logits, torch.arange(8))  # all right: top 1 and top 5 count the same
    collection.update(logits, torch.arange(8))
    collection.update(logits - 2 * logits.roll(1, 0), torch.arange(8).roll(1))  # the label comes last but one
    collection.update(logits + logits.roll(1, 1) / 2, torch.arange(8).roll(-1))  # the label comes second
    found = collection.compute()
    assert found["acc"] == pytest.approx(2 / 4)
    assert found["top5"] == pytest.approx(3 / 4)
