"""The figure of distributions, by reading its artists back; counts are those of raw entries."""

import time
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.static import plot_distributions
from kgrad.records.history import GradientHistory, Weight

EDGES = np.log10(2.0 ** np.arange(-126, 129))  # of the ordinary bins


pytestmark = pytest.mark.usefixtures("nothing_leaks")


def count(entries: np.ndarray) -> np.ndarray:
    """Counts of the exponents of raw entries: (256,)."""
    magnitudes = np.abs(np.asarray(entries, dtype=np.float64).ravel())
    finite = magnitudes[np.isfinite(magnitudes)]
    ordinary = finite[finite >= 2.0**-126]
    counts = np.zeros(256, dtype=np.int64)
    counts[0], counts[255] = finite.size - ordinary.size, magnitudes.size - finite.size
    counts[1:255] = np.histogram(ordinary, 2.0 ** np.arange(-126, 129))[0]
    return counts


def make_history(
    runs: Sequence[Sequence[Sequence[np.ndarray]] | None],
    epochs: Sequence[int] | None = None,
    prefix: str = "dense",
) -> GradientHistory:
    """From entries[record][layer][weight]; None is a record without distributions."""
    layers = next(run for run in runs if run is not None)
    weights = [
        Weight(f"{prefix}_{i}", f"w{j}", f"{i}/w{j}", (2,))
        for i, layer in enumerate(layers)
        for j in range(len(layer))
    ]
    history = GradientHistory(weights, ["mean_abs"])
    for r, run in enumerate(runs):
        rows = None if run is None else np.stack([count(w) for layer in run for w in layer])
        epoch = r if epochs is None else epochs[r]
        history.append(epoch, 10 * r, {"mean_abs": [1.0] * len(weights)}, distributions=rows)
    return history


def spread(records: int, layers: int, entries: int = 200) -> list[list[list[np.ndarray]]]:
    """Entries of two weights a layer, a decade larger from layer to layer, growing in time."""
    random = np.random.default_rng(0)
    return [
        [
            [random.normal(0, 10.0 ** (i - 5) * (1 + r), entries // (1 + j)) for j in range(2)]
            for i in range(layers)
        ]
        for r in range(records)
    ]


def panels(figure: Figure) -> list[Axes]:
    figure.canvas.draw()  # lays out, which is where matplotlib warns
    return [ax for ax in figure.axes if ax.get_title()]


def mesh(ax: Axes) -> QuadMesh:
    (one,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    return one


def density(ax: Axes) -> np.ndarray:
    """What the colors stand for, (columns, bins), 0 where there is none."""
    return np.ma.filled(mesh(ax).get_array(), 0.0).T


def strips(ax: Axes) -> dict[float, np.ndarray]:
    """Filled steps by the height of their base, as fractions of the strip."""
    found = {}
    for patch in ax.patches:
        if isinstance(patch, StepPatch):
            values, _, base = patch.get_data()
            top = 1.0 if base else next(p for p in ax.patches if p.get_xy()[1] == 0).get_height()
            found[round(float(base), 3)] = (values - base) / (top - base)
    return found


def legend_names(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def expected_shares(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Of the finite entries above 0 of several weights together."""
    logarithms = np.log2(np.abs(np.concatenate(weights)))
    return np.histogram(logarithms, np.arange(-126, 129))[0] / logarithms.size


def test_few_layers_have_a_panel_each_of_density_by_record_and_magnitude() -> None:
    entries = spread(records=4, layers=3)
    figure = plot_distributions(make_history(entries), title="a title")
    axes = panels(figure)
    assert figure.get_suptitle() == "a title"
    assert [ax.get_title() for ax in axes] == ["dense_0", "dense_1", "dense_2"]
    assert {ax.get_xlabel() for ax in axes} == {"epoch"}
    for i, ax in enumerate(axes):
        assert_allclose(density(ax), [expected_shares(record[i]) for record in entries])
        corners = mesh(ax).get_coordinates()
        assert_array_equal(corners[0, :, 0], np.arange(5) - 0.5)
        assert_allclose(corners[:, 0, 1], EDGES)


def test_all_panels_share_the_axes_the_colors_and_one_bar() -> None:
    figure = plot_distributions(make_history(spread(5, 7)), title="")
    axes = panels(figure)
    assert len({ax.get_ylim() for ax in axes}) == len({ax.get_xlim() for ax in axes}) == 1
    assert len({id(mesh(ax).norm) for ax in axes}) == 1
    (bar,) = [ax for ax in figure.axes if not ax.get_title()]
    assert bar.get_ylabel() == "share of entries per factor of 2"
    assert legend_names(figure) == ["median"]
    # Seven panels in three columns: magnitudes at the left, time below each column.
    assert [ax.yaxis.get_tick_params()["labelleft"] for ax in axes] == [True, False, False] * 2 + [
        True
    ]
    shown = [ax.xaxis.get_tick_params()["labelbottom"] for ax in axes]
    assert shown == [False] * 4 + [True] * 3


def test_the_line_is_the_median_of_the_entries_that_are_neither_zero_nor_special() -> None:
    # Half of them in [1/4, 1/2), half in [1, 2): the median is where the first half ends.
    halves = np.array([0.3, 0.4, 1.5, 1.6, 0, np.nan, 0, 0])
    third = np.array([8.0, 9.0, 10.0])  # alone in [8, 16): in the middle of the bin
    axes = panels(plot_distributions(make_history([[[halves]], [[third]]]), title=""))
    (line,) = axes[0].lines
    assert_array_equal(line.get_xdata(), [0, 1])
    assert_allclose(line.get_ydata(), [np.log10(0.5), 3.5 * np.log10(2)])


def test_the_medians_of_many_entries_are_numpys_within_a_bin() -> None:
    entries = spread(3, 2, entries=3000)
    for i, ax in enumerate(panels(plot_distributions(make_history(entries), title=""))):
        exact = [np.median(np.log10(np.abs(np.concatenate(record[i])))) for record in entries]
        assert_allclose(ax.lines[0].get_ydata(), exact, atol=0.02)


def test_the_lines_are_lighter_at_the_input() -> None:
    axes = panels(plot_distributions(make_history(spread(3, 5)), title=""))
    colors = np.array([matplotlib.colors.to_rgb(ax.lines[0].get_color()) for ax in axes])
    assert (np.diff(colors @ [0.2126, 0.7152, 0.0722]) < 0).all()


def test_zeros_and_nonfinite_entries_have_strips_that_show_their_share() -> None:
    tiny = 1e-39  # below float32's normal range
    first = np.array([0.0, 1.0, 2.0, tiny, 0.5, 0.5, 0.5, 0.5])
    then = np.array([np.nan, np.inf, -np.inf, 1.0])
    figure = plot_distributions(make_history([[[first]], [[then]]]), title="")
    (ax,) = panels(figure)
    shown = strips(ax)
    assert_allclose(shown[0.0], [2 / 8, 0])
    assert_allclose(shown[0.88], [0, 3 / 4])
    assert_allclose(density(ax).sum(axis=1), 1)  # of the others
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert {"0", "NaN ∞"} < set(labels)
    assert legend_names(figure) == [
        "median",
        "share of zeros (a full strip: 100 %)",
        "share of NaN or infinite (a full strip: 100 %)",
    ]


def test_the_strips_cover_no_cell_and_are_absent_where_nothing_needs_them() -> None:
    entries = spread(3, 2)
    (plain, _) = panels(plot_distributions(make_history(entries), title=""))
    assert strips(plain) == {}
    entries[0][1][0] = np.concatenate([np.full(5000, 0.01), [0.0, np.inf, 1e-20, 1e20]])
    for ax in panels(plot_distributions(make_history(entries), title="")):
        assert set(strips(ax)) == {0.0, 0.88}
        filled = density(ax).any(axis=0)
        ends = ax.transLimits.transform([(0, EDGES[:-1][filled][0]), (0, EDGES[1:][filled][-1])])
        assert ends[0, 1] >= 0.12
        assert ends[1, 1] <= 0.88


def test_the_axis_holds_all_but_a_thin_tail() -> None:
    many = np.full(5000, 1.5)
    lone = np.concatenate([many, [1e-30]])
    (ax,) = panels(plot_distributions(make_history([[[lone]], [[many]]]), title=""))
    assert ax.get_ylim()[0] > -1
    some = np.concatenate([many, np.full(20, 1e-30)])
    (ax,) = panels(plot_distributions(make_history([[[some]], [[many]]]), title=""))
    assert ax.get_ylim()[0] < -30
    assert ax.get_ylim()[1] > np.log10(2)


def test_records_without_distributions_are_left_out() -> None:
    entries = spread(5, 2)
    axes = panels(
        plot_distributions(make_history([None, *entries[:2], None, entries[2]]), title="")
    )
    for i, ax in enumerate(axes):
        assert_allclose(density(ax), [expected_shares(record[i]) for record in entries[:3]])
        assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 4])
        assert_array_equal(mesh(ax).get_coordinates()[0, :, 0], [0.5, 1.5, 3, 5])


def test_a_record_between_two_that_are_all_zero_still_has_its_median() -> None:
    rows = [[[np.array([0.0, 1.0 if r == 2 else 0.0])]] for r in range(4)]
    (ax,) = panels(plot_distributions(make_history(rows), title=""))
    (line,) = ax.lines
    assert_array_equal(np.isfinite(line.get_ydata()), [False, False, True, False])
    assert_array_equal(line.get_markevery(), [False, False, True, False])


def test_one_record_is_drawn_against_depth() -> None:
    entries = spread(1, 4)
    figure = plot_distributions(make_history(entries), title="")
    (ax,) = panels(figure)
    assert (ax.get_title(), ax.get_xlabel()) == ("epoch 0", "layer, input → output")
    assert_allclose(density(ax), [expected_shares(layer) for layer in entries[0]])
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"dense_{i}" for i in range(4)]


def test_many_layers_are_drawn_against_depth_at_some_moments() -> None:
    entries = spread(10, 13, entries=20)
    figure = plot_distributions(make_history(entries), title="")
    axes = panels(figure)
    moments = [int(ax.get_title().removeprefix("epoch ")) for ax in axes]
    assert len(moments) == 4
    assert (moments[0], moments[-1]) == (0, 9)
    for moment, ax in zip(moments, axes, strict=True):
        assert_allclose(density(ax), [expected_shares(layer) for layer in entries[moment]])
    names = [text.get_text() for text in axes[-1].get_xticklabels()]
    assert (names[0], names[-1]) == ("dense_0", "dense_12")


def test_epochs_are_those_asked_for_each_by_its_last_record() -> None:
    entries = spread(6, 2)
    history = make_history(entries, epochs=[0, 1, 1, 2, 2, 3])
    axes = panels(plot_distributions(history, title="", epochs=[2, 0]))
    assert [ax.get_title() for ax in axes] == ["epoch 2", "epoch 0"]
    for record, ax in zip((4, 0), axes, strict=True):
        assert_allclose(density(ax), [expected_shares(layer) for layer in entries[record]])


def test_layers_are_those_asked_for_in_forward_order() -> None:
    entries = spread(3, 20, entries=20)
    history = make_history(entries)
    axes = panels(plot_distributions(history, title="", layers=["dense_15", "dense_3"]))
    assert [ax.get_title() for ax in axes] == ["dense_3", "dense_15"]
    for i, ax in zip((3, 15), axes, strict=True):
        assert_allclose(density(ax), [expected_shares(record[i]) for record in entries])


def test_steps_count_the_time_where_an_epoch_has_several_records() -> None:
    history = make_history(spread(3, 1), epochs=[0, 1, 1])
    (ax,) = panels(plot_distributions(history, title=""))
    assert ax.get_xlabel() == "step"
    assert_array_equal(ax.lines[0].get_xdata(), [0, 10, 20])


def test_nothing_but_zeros_is_said() -> None:
    figure = plot_distributions(make_history([[[np.zeros(3)]]] * 2), title="")
    (ax,) = panels(figure)
    assert [text.get_text() for text in ax.texts] == ["no finite value\nabove 0"]
    assert_allclose(strips(ax)[0.0], [1, 1])
    assert legend_names(figure) == ["share of zeros (a full strip: 100 %)"]
    assert figure.axes == [ax]  # no key to colors that do not occur


def test_a_few_columns_of_one_entry_do_not_pale_the_others() -> None:
    wide = 2.0 ** np.arange(-8, 12)  # a share of 1/20 in each bin
    rows = [[[wide]] for _ in range(49)] + [[[np.array([1.0])]]]
    figure = plot_distributions(make_history(rows), title="")
    (ax,) = panels(figure)
    assert_allclose(mesh(ax).norm.vmax, 1 / 20)


def test_long_names_of_layers_do_not_run_into_each_other() -> None:
    history = make_history(spread(2, 6), prefix="a_very_long_name_of_a_block_and_its_layer")
    axes = panels(plot_distributions(history, title=""))
    boxes = [ax.title.get_window_extent() for ax in axes]
    assert not any(one.overlaps(other) for one in boxes for other in boxes if other is not one)


def test_a_long_run_is_drawn_in_seconds() -> None:
    history = make_history(spread(1, 12) * 300)
    start = time.perf_counter()
    panels(plot_distributions(history, title=""))
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["dense_9"]}, ValueError, "layers must be among dense_0, dense_1, received 'd"),
        ({"layers": []}, ValueError, "layers must be among dense_0, dense_1, received none"),
        (
            {"layers": "dense_0"},
            TypeError,
            "layers must be a sequence of names, received 'dense_0'",
        ),
        ({"epochs": [7]}, ValueError, "epochs must be among those recorded (0, 2), received 7"),
        ({"epochs": [1]}, ValueError, "epochs must be among those recorded (0, 2), received 1"),
        ({"epochs": []}, ValueError, "epochs must name at least one epoch, received none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    options: dict, error: type[Exception], message: str
) -> None:
    first, last = spread(2, 2)
    with pytest.raises(error) as caught:
        plot_distributions(make_history([first, None, last]), title="", **options)
    assert str(caught.value).startswith(message)


def test_a_history_without_distributions_is_refused() -> None:
    with_one = make_history(spread(1, 2))
    history = GradientHistory(with_one.weights, ["mean_abs"])
    with pytest.raises(ValueError, match=r"^history must have at least one record, received none"):
        plot_distributions(history, title="")
    history.append(1, 1, {"mean_abs": [1] * 4})
    with pytest.raises(ValueError, match=r"^history must have distributions, received none: ask"):
        plot_distributions(history, title="")
    with pytest.raises(TypeError, match=r"^history must be a GradientHistory, received list"):
        plot_distributions([history], title="")  # type: ignore[arg-type]
