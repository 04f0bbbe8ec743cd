"""Makes the figure and the table of `docs/remedies.md`: `python docs/remedies_figure.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import kgrad
from kgrad.experiments import Experiment


def main() -> None:
    ill = Experiment(name="deep sigmoid", activation="sigmoid", initializer="normal")
    trials = kgrad.try_remedies(ill)
    print(trials)
    figure = kgrad.plot_remedies(trials, title="A deep sigmoid network, as it is and changed")
    figure.savefig(Path(__file__).parent / "figures" / "remedies.png", dpi=100)


if __name__ == "__main__":
    main()
