"""The processes of `test_torch.py`: a loop of one's own under `DistributedDataParallel`.

`python torch_processes.py RANK PROCESSES PORT FOLDER`, in each of several processes, or alone.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from kgrad.measure.loop import train_and_track_gradients
from kgrad.measure.tracker import GradientTracker

X = np.random.default_rng(5).normal(size=(32, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
ACTIVATIONS = ["tanh", "linear"]
BATCH, EPOCHS, RATE = 8, 3, 0.1


def dense():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(1)]
    )


def train(tracker, rank, processes):
    """Train as Keras's guide does, each process on its part of every batch."""
    model, optimizer = dense(), keras.optimizers.SGD(RATE)
    network = DistributedDataParallel(model) if processes > 1 else model
    loss_of = keras.losses.MeanSquaredError()
    with tracker.attach(optimizer, model):
        for _ in range(EPOCHS):
            for start in range(0, len(X), BATCH):
                own = slice(start + rank, start + BATCH, processes)
                model.zero_grad()
                loss = loss_of(torch.from_numpy(Y[own]), network(torch.from_numpy(X[own])))
                loss.backward()
                gradients = [variable.value.grad for variable in model.trainable_variables]
                with torch.no_grad():
                    optimizer.apply(gradients, model.trainable_variables)
            tracker.record()
    return model, network


def main(rank, processes, port, folder):
    if processes > 1:
        address = f"tcp://127.0.0.1:{port}"
        distributed.init_process_group("gloo", address, rank=rank, world_size=processes)
    own = folder / f"{rank} of {processes}"
    own.mkdir()
    tracker = GradientTracker(["max_abs"], journal=own / "journal.jsonl", log_dir=own / "logs")
    model, network = train(tracker, rank, processes)
    tracker.history.save(own / "history.jsonl")
    np.savez(own / "weights.npz", *model.get_weights())
    if processes > 1:
        refused = []
        for what in (
            lambda: train_and_track_gradients(dense(), X, Y, 1),
            lambda: GradientTracker().attach(keras.optimizers.SGD(), network),
        ):
            try:
                what()
            except (TypeError, ValueError) as error:
                refused.append(str(error))
        (own / "refused.txt").write_text("\n".join(refused))
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
