"""Measure the cost of `GradientTracker(live=True)` in `fit`: a CNN on digits, as in the examples.

Whole fits take turns: without a view, with one in a terminal, and with one in a notebook's kernel,
in which the program runs. The table shows the medians of their seconds and, since a busy machine
differs by more than the view costs, the share of the time that the view itself spent drawing.

    python benchmarks/live.py
"""

import io
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROUNDS, EPOCHS = 5, 12


def main() -> None:
    """Run the measurement in a kernel, as a notebook does, and print its table."""
    import nbclient
    import nbformat
    from jupyter_client.manager import AsyncKernelManager

    source = Path(__file__).read_text(encoding="utf-8")
    code = source.replace('if __name__ == "__main__":\n    main()', "measure()")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(
        notebook,
        km=AsyncKernelManager(transport="ipc"),  # with TCP, others could connect
        timeout=None,
        coalesce_streams=True,
    )
    client.execute()
    for output in notebook.cells[0].outputs:
        if output.get("name") == "stdout":
            print(output.text)


def measure() -> None:
    """Train in turns, and print medians."""
    import keras
    from keras import layers
    from rich.console import Console

    import kgrad
    from kgrad.measure import live

    data = kgrad.make_dataset("digits")
    images = data.X.reshape(-1, 8, 8, 1)
    spent: list[float] = []

    class Measured(live.LiveView):
        def __init__(self) -> None:
            super().__init__(consoles[kind])

        def close(self) -> None:
            self._draw_pending()
            spent.append(self._spent)
            super().close()

    live.LiveView = Measured
    terminal = Console(file=io.StringIO(), force_terminal=True, force_jupyter=False, width=100)
    consoles = {"terminal": terminal, "notebook": Console()}
    seconds: dict[str, list[float]] = {"no view": [], "terminal": [], "notebook": []}
    shares: dict[str, list[float]] = {kind: [] for kind in seconds}
    for _ in range(ROUNDS):
        for kind in seconds:
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((8, 8, 1))])
            for number, filters in enumerate((16, 16, 32, 32)):
                model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
                if number == 1:
                    model.add(layers.MaxPooling2D())
            model.add(layers.Flatten())
            model.add(layers.Dense(10, activation="softmax"))
            model.compile("adam", "sparse_categorical_crossentropy")
            tracker = kgrad.GradientTracker(live=kind != "no view")
            start = time.perf_counter()
            model.fit(images, data.y, epochs=EPOCHS, verbose=0, callbacks=[tracker])
            seconds[kind].append(time.perf_counter() - start)
            shares[kind].append(spent.pop() / seconds[kind][-1] if spent else 0.0)
    print("| view | seconds | ratio | drawing |\n|---|---|---|---|")
    for kind, times in seconds.items():
        pairs = zip(times, seconds["no view"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        drawing = statistics.median(shares[kind])
        print(f"| {kind} | {statistics.median(times):.2f} | {ratio:.3f} | {drawing:.2%} |")


if __name__ == "__main__":
    main()
