"""Trains with PyTorch and goes on from its checkpoint when its job starts again.

    clearml-task --project runs --name train --script checkpoint_pytorch.py --packages clearml torch --skip-task-init \
        --queue gpu

A preemption, a time limit and a cancellation send SIGTERM. The loop then saves, and ends with exit code 143: only a
task that ends with 0 is complete.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch
from clearml import Task

STOPPED = 128 + signal.SIGTERM


class StopFlag:
    """Set by SIGTERM; a signal handler that does more could interrupt a save."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


def save(path: Path, state: dict[str, object]) -> None:
    """Replaces the old checkpoint at once: a node that dies in between leaves one of the two, whole."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def main() -> int:
    # 0: epochs are reported as they are numbered here. By default the SDK adds the last one reported to each of them
    # in a task that has run before. What is saved here is for this task alone, so it is not registered as a model.
    task = Task.init(continue_last_task=0, auto_connect_frameworks={"pytorch": False})
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long an epoch takes at least")
    parser.add_argument("--folder", type=Path, default=Path.home() / "checkpoints", help="on the shared file system")
    arguments = parser.parse_args()
    stop = StopFlag()

    torch.manual_seed(7)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs = torch.rand(512, 2, device=device) * 2 - 1
    targets = (inputs[:, :1] * inputs[:, 1:]).sin()

    # By the task's id: a clone begins at the beginning.
    checkpoint = arguments.folder / task.id / "state.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    begin = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin = state["epoch"] + 1
    print(f"begins with epoch {begin}", flush=True)

    for epoch in range(begin, arguments.epochs):
        started = time.monotonic()
        for _ in range(20):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
        time.sleep(max(0.0, arguments.seconds - (time.monotonic() - started)))
        task.get_logger().report_scalar("loss", "train", loss.item(), epoch)
        print(f"epoch {epoch}: loss {loss.item():.5f}", flush=True)
        save(checkpoint, {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
        if stop.is_set and epoch + 1 < arguments.epochs:
            print(f"stopped after epoch {epoch}", flush=True)
            return STOPPED
    print("trained", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
