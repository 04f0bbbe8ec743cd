"""The figure of activations, by reading its artists back."""

import time
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.static import plot_activations
from kgrad.records.history import GradientHistory, Weight

TITLES = {
    "activation_mean": "mean activation",
    "activation_std": "standard deviation",
    "activation_zero_fraction": "share of zeros",
    "activation_saturated": "share saturated",
    "activation_dead": "share of dead units",
    "signal_mean_abs": "back-propagated mean |∂L/∂a|",
}
SHARES = ("share of zeros", "share saturated", "share of dead units")
SPECIAL = ("0 (exactly)", "infinite", "NaN")


pytestmark = pytest.mark.usefixtures("nothing_leaks")


def make_tables(records: int = 6, outputs: int = 4) -> dict[str, np.ndarray]:
    """Statistic → (records, outputs), all of them and one that is not drawn."""
    random = np.random.default_rng(0)
    tables = {name: random.random((records, outputs)) for name in (*TITLES, "signal_l2")}
    tables["activation_mean"] -= 0.7
    tables["signal_mean_abs"] *= 10.0 ** -np.arange(outputs)
    return tables


def make_history(
    tables: Mapping[str, np.ndarray],
    without: Sequence[int] = (),
    epochs: Sequence[int] | None = None,
) -> GradientHistory:
    """The records of the tables, and before some of them, by place, one without activations."""
    outputs = next(iter(tables.values())).shape[1]
    names = [f"layer_{i}" for i in range(outputs)]
    history = GradientHistory([Weight("a", "w", "a/w", (1,))], ["mean_abs"], outputs=names)
    for r in range(len(next(iter(tables.values())))):
        for known in [False, True] if r in without else [True]:
            rows = {name: table[r] for name, table in tables.items()} if known else None
            number = len(history)
            epoch = number if epochs is None else epochs[number]
            history.append(epoch, 10 * number, {"mean_abs": [1.0]}, activations=rows)
    return history


def panels(figure: Figure) -> dict[str, Axes]:
    """By title."""
    figure.canvas.draw()  # lays out, which is where matplotlib warns
    return {ax.get_title(): ax for ax in figure.axes if ax.get_title()}


def lines(ax: Axes) -> list[Line2D]:
    return [line for line in ax.lines if line.get_label() not in SPECIAL]


def markers(ax: Axes) -> dict[str, list[float]]:
    """Name of a special value → where it is marked."""
    return {
        str(line.get_label()): list(map(float, np.asarray(line.get_xdata())))
        for line in ax.lines
        if line.get_label() in SPECIAL
    }


def legend_names(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_each_statistic_has_a_panel_with_a_line_an_output() -> None:
    tables = make_tables()
    figure = plot_activations(make_history(tables), title="a title")
    axes = panels(figure)
    assert figure.get_suptitle() == "a title"
    assert list(axes) == list(TITLES.values())
    for name, title in TITLES.items():
        assert len(lines(axes[title])) == 4
        for line, column in zip(lines(axes[title]), tables[name].T, strict=True):
            assert_array_equal(line.get_xdata(), np.arange(6))
            assert_array_equal(line.get_ydata(), column)
    assert axes[TITLES["signal_mean_abs"]].get_xlabel() == "epoch"


def test_magnitudes_are_logarithmic_and_shares_on_one_linear_axis() -> None:
    axes = panels(plot_activations(make_history(make_tables()), title=""))
    logarithmic = {title for title, ax in axes.items() if ax.get_yscale() == "log"}
    assert logarithmic == {TITLES["activation_std"], TITLES["signal_mean_abs"]}
    assert len({axes[title].get_ylim() for title in SHARES}) == 1
    low, high = axes[SHARES[0]].get_ylim()
    assert -0.1 < low <= 0
    assert 1 <= high < 1.1


def test_means_may_be_negative_and_their_axis_holds_zero_and_all_of_them() -> None:
    for sign in (-1, 1):
        tables = make_tables()
        tables["activation_mean"] = sign * (5 + np.arange(24.0).reshape(6, 4))
        low, high = panels(plot_activations(make_history(tables), title=""))[
            "mean activation"
        ].get_ylim()
        ends = sorted([0, 28 * sign])
        assert low < ends[0] < ends[1] < high
        assert high - low < 1.2 * 28


def test_the_lines_are_lighter_at_the_input_in_every_panel() -> None:
    for ax in panels(plot_activations(make_history(make_tables(outputs=7)), title="")).values():
        colors = np.array([matplotlib.colors.to_rgb(line.get_color()) for line in lines(ax)])
        assert (np.diff(colors @ [0.2126, 0.7152, 0.0722]) < 0).all()


def test_a_layer_that_cannot_saturate_has_no_line_and_no_mark() -> None:
    tables = make_tables()
    tables["activation_saturated"][:, [0, 2]] = np.nan
    figure = plot_activations(make_history(tables), title="")
    ax = panels(figure)["share saturated"]
    drawn = [np.isfinite(np.asarray(line.get_ydata(), float)).all() for line in lines(ax)]
    assert drawn == [False, True, False, True]
    assert markers(ax) == {}
    assert legend_names(figure) == ["layer_0", "layer_1", "layer_2", "layer_3"]
    others = panels(figure)["share of zeros"]
    assert [one.get_color() for one in lines(ax)] == [one.get_color() for one in lines(others)]


def test_a_share_that_no_layer_has_and_what_was_not_measured_have_no_panel() -> None:
    tables = make_tables()
    tables["activation_saturated"][:] = np.nan
    del tables["activation_std"]
    axes = panels(plot_activations(make_history(tables), title=""))
    assert set(axes) == set(TITLES.values()) - {"share saturated", "standard deviation"}
    tables = {"activation_dead": make_tables()["activation_dead"]}
    (ax,) = panels(plot_activations(make_history(tables), title="")).values()
    assert (ax.get_title(), ax.get_xlabel()) == ("share of dead units", "epoch")


def test_nan_infinity_and_zero_are_marked() -> None:
    tables = make_tables()
    tables["activation_mean"][3, 1] = np.nan
    tables["activation_mean"][4, 0] = np.inf
    tables["activation_std"][5, 2] = 0
    tables["signal_mean_abs"][2, 3] = np.nan
    figure = plot_activations(make_history(tables), title="")
    axes = panels(figure)
    assert markers(axes["mean activation"]) == {"infinite": [4.0], "NaN": [3.0]}
    assert markers(axes["standard deviation"]) == {"0 (exactly)": [5.0]}
    assert markers(axes[TITLES["signal_mean_abs"]]) == {"NaN": [2.0]}
    assert markers(axes["share of zeros"]) == {}
    assert legend_names(figure)[4:] == ["0 (exactly)", "infinite", "NaN"]


def test_no_signal_at_all_is_said() -> None:
    tables = make_tables()
    tables["signal_mean_abs"][:] = 0
    ax = panels(plot_activations(make_history(tables), title=""))[TITLES["signal_mean_abs"]]
    assert [text.get_text() for text in ax.texts] == ["no finite value\nabove 0"]
    assert markers(ax) == {"0 (exactly)": [0, 1, 2, 3, 4, 5]}


def test_records_without_activations_are_left_out() -> None:
    tables = make_tables(records=3)
    for ax in panels(plot_activations(make_history(tables, without=[0, 2]), title="")).values():
        for line in lines(ax):
            assert_array_equal(line.get_xdata(), [1, 2, 4])
        assert "NaN" not in markers(ax)


def test_steps_count_the_time_where_an_epoch_has_several_records() -> None:
    history = make_history(make_tables(records=3), epochs=[0, 1, 1])
    ax = panels(plot_activations(history, title=""))[TITLES["signal_mean_abs"]]
    assert ax.get_xlabel() == "step"
    assert_array_equal(lines(ax)[0].get_xdata(), [0, 10, 20])


@pytest.mark.parametrize("without", [(), (0,)])
def test_one_record_is_drawn_against_depth_with_bars_of_one_standard_deviation(
    without: tuple[int, ...],
) -> None:
    tables = make_tables(records=1)
    figure = plot_activations(make_history(tables, without), title="")
    axes = panels(figure)
    for name, title in TITLES.items():
        line = lines(axes[title])[0]
        assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
        assert_allclose(line.get_ydata(), tables[name][0])
        names = [text.get_text() for text in axes[title].get_xticklabels()]
        assert names == ["layer_0", "layer_1", "layer_2", "layer_3"]
    mean, std = tables["activation_mean"][0], tables["activation_std"][0]
    ax = axes["mean activation"]
    (bars,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    for i, ((x, low), (_, high)) in enumerate(bars.get_segments()):
        assert_allclose([x, low, high], [i + 1, mean[i] - std[i], mean[i] + std[i]])
    assert ax.get_ylim()[0] < (mean - std).min()
    assert ax.get_ylim()[1] > (mean + std).max()
    assert axes[TITLES["signal_mean_abs"]].get_xlabel() == "layer, input → output"
    assert legend_names(figure) == []


def test_one_record_that_is_not_finite_is_drawn_without_bars_there() -> None:
    tables = make_tables(records=1)
    tables["activation_mean"][0, 1:3] = np.nan, np.inf
    tables["activation_std"][0, 1:3] = np.nan, np.inf
    ax = panels(plot_activations(make_history(tables), title=""))["mean activation"]
    assert markers(ax) == {"infinite": [3.0], "NaN": [2.0]}
    (bars,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    assert [len(one) for one in bars.get_segments()] == [2, 0, 0, 2]


def test_few_outputs_are_told_apart_by_name_and_many_by_a_bar() -> None:
    few = plot_activations(make_history(make_tables(outputs=8)), title="")
    assert len(few.axes) == len(panels(few)) == 6
    assert legend_names(few) == [f"layer_{i}" for i in range(8)]
    many = plot_activations(make_history(make_tables(outputs=9)), title="")
    assert len(many.axes) == len(panels(many)) + 1 == 7
    assert legend_names(many) == []


def test_a_long_run_of_a_deep_model_is_drawn_in_seconds() -> None:
    history = make_history(make_tables(records=300, outputs=100))
    start = time.perf_counter()
    panels(plot_activations(history, title=""))
    assert time.perf_counter() - start < 10


def test_a_history_without_activations_is_refused() -> None:
    history = GradientHistory([Weight("a", "w", "a/w", (1,))], ["mean_abs"], outputs=["a"])
    with pytest.raises(ValueError, match=r"^history must have at least one record, received none"):
        plot_activations(history, title="")
    history.append(1, 1, {"mean_abs": [1]})
    with pytest.raises(ValueError, match=r"^history must have activations, received none: ask"):
        plot_activations(history, title="")
    with pytest.raises(TypeError, match=r"^history must be a GradientHistory, received dict"):
        plot_activations({"a": history}, title="")  # type: ignore[arg-type]


@pytest.mark.parametrize("records", [1, 6])
def test_a_share_that_is_0_everywhere_says_so(records):
    tables = make_tables(records)
    tables["activation_dead"][:] = 0.0
    tables["activation_dead"][0, 0] = np.nan  # a layer that cannot die
    drawn = panels(plot_activations(make_history(tables)))
    notes = {title: [text.get_text() for text in ax.texts] for title, ax in drawn.items()}
    assert notes.pop("share of dead units") == ["0 in every layer"]
    assert not any(notes.values())
