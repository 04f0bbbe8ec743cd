"""Draw the figure and print the table of `docs/remedies.md`.

python docs/remedies_figure.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import kgrad
from kgrad.experiments import Experiment


def main() -> None:
    vanishing = Experiment(name="deep sigmoid", activation="sigmoid", weight_initializer="normal")
    trials = kgrad.try_remedies(vanishing)
    print(trials)
    figure = kgrad.plot_remedies(
        trials, title="A deep sigmoid network, unchanged and with remedies"
    )
    figure.savefig(Path(__file__).parent / "figures" / "remedies.png", dpi=100)


if __name__ == "__main__":
    main()
