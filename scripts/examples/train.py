"""Fits a line to noisy points by gradient descent, and tells ClearML how it goes."""

from __future__ import annotations

import argparse

import numpy as np
from clearml import Task


def main() -> None:
    task = Task.init()
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.5)
    arguments = parser.parse_args()

    random = np.random.default_rng(7)
    x = random.uniform(-1, 1, 200)
    y = 3 * x + 1 + random.normal(0, 0.1, 200)
    slope, offset = 0.0, 0.0
    for epoch in range(arguments.epochs):
        error = slope * x + offset - y
        slope -= arguments.rate * 2 * float(np.mean(error * x))
        offset -= arguments.rate * 2 * float(np.mean(error))
        loss = float(np.mean(error**2))
        task.get_logger().report_scalar("loss", "train", loss, epoch)
        print(f"epoch {epoch}: loss {loss:.4f}", flush=True)
    print(f"y = {slope:.2f} x + {offset:.2f}")


if __name__ == "__main__":
    main()
