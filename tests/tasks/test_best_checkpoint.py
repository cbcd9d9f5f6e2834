import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from mmeff.tasks.safety import BestCheckpoint


class Scored(LightningModule):
    """Has the given score after each epoch."""

    def __init__(self, scores: list[float]):
        super().__init__()
        self.layer, self.scores = nn.Linear(1, 1), scores

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/score", self.scores[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("scores", "kept"), [([0.5, 0.9, 0.8], 1), ([0.5, 0.9, 0.9, 0.8], 2), ([0.5, float("nan"), 0.5], 2)]
)
def test_the_best_epoch_is_kept_and_of_equal_ones_the_latest(tmp_path, scores, kept):
    data = DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu", max_epochs=len(scores), logger=False, callbacks=[BestCheckpoint(tmp_path)],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Scored(scores), data, data)
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == kept
