"""Trains with Lightning and goes on from its checkpoint when its job starts again.

    clearml-task --project runs --name train --script checkpoint_lightning.py --packages clearml torch \
        pytorch-lightning --skip-task-init --queue gpu

At SIGTERM the trainer ends after the batch that it is at, a callback saves, and the program ends with exit code 143.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from clearml import Task
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException

STOPPED = 128 + signal.SIGTERM


class Product(pl.LightningModule):  # type: ignore[misc]
    """Learns the sine of a product of two numbers; reports the loss of each epoch."""

    def __init__(self, task: Task, seconds: float) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        self._task = task
        self._seconds = seconds
        self._loss = 0.0

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        inputs, targets = batch
        loss = torch.nn.functional.mse_loss(self.net(inputs), targets)
        time.sleep(self._seconds)
        self._loss = loss.item()
        return loss

    def on_train_epoch_end(self) -> None:
        self._task.get_logger().report_scalar("loss", "train", self._loss, self.current_epoch)
        print(f"epoch {self.current_epoch}: loss {self._loss:.5f}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def newest(folder: Path) -> str | None:
    """The checkpoint to go on from: that of the last whole epoch, or a later one of SIGTERM."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else None


def main() -> int:
    # 0: epochs are reported as they are numbered here.
    task = Task.init(continue_last_task=0, auto_connect_frameworks={"pytorch": False})
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.25, help="how long a batch takes at least")
    parser.add_argument("--folder", type=Path, default=Path.home() / "checkpoints", help="on the shared file system")
    arguments = parser.parse_args()

    pl.seed_everything(7)
    inputs = torch.rand(512, 2) * 2 - 1
    data = torch.utils.data.TensorDataset(inputs, (inputs[:, :1] * inputs[:, 1:]).sin())
    folder = arguments.folder / task.id
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        devices=1,
        callbacks=[
            ModelCheckpoint(folder, filename="epoch", enable_version_counter=False),
            OnExceptionCheckpoint(folder, "interrupted"),
        ],
        # Lightning's own environment for Slurm would requeue the job itself, at SIGUSR1.
        plugins=[LightningEnvironment()],
        **options,
    )
    checkpoint = newest(folder)
    print(f"begins with {Path(checkpoint).name if checkpoint else 'epoch 0'}", flush=True)
    try:
        loader = torch.utils.data.DataLoader(data, batch_size=128, shuffle=True)
        trainer.fit(Product(task, arguments.seconds), loader, ckpt_path=checkpoint)
    except SIGTERMException:
        print(f"stopped in epoch {trainer.current_epoch}", flush=True)
        return STOPPED
    print("trained", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
