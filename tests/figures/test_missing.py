"""Gradients that do not exist, in every figure of both halves: their marks and their names.

The artists and traces are read back. Layer 1 is updated in even records only, layer 2 has no path
to the loss, layer 3 has a gradient of 0 from record 2 on and NaN in the last one.
"""

import base64

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_array_equal

from kgrad.figures import interactive, static
from kgrad.figures.distribution_cells import drawable_cells
from kgrad.figures.flow_looks import drawn_norm, text_of, verdict_of
from kgrad.figures.interactive.flow_drawing import FlowDrawing
from kgrad.figures.scale import (
    INFINITE,
    NAN,
    NO_PATH,
    NOT_UPDATED,
    SPECIAL,
    ZERO,
    Scale,
    with_missing,
)
from kgrad.figures.selection import layer_values, trial_values
from kgrad.figures.thinning import Columns, notable_records
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.trials import Trials

pytestmark = pytest.mark.usefixtures("nothing_leaks")

RECORDS, LAYERS = 6, 5
ABSENT = np.array([[r % 2 == 1, False] for r in range(RECORDS)])  # layer 1 in each record
OVERTIME = ("plot_gradients", "plot_lines", "plot_heatmap")


def make_history(records=RECORDS, *, counts=True, statistic="mean_abs"):
    names = [f"layer_{i}" for i in range(LAYERS)]
    weights = [Weight(name, "kernel", f"{name}/kernel", (3, 3)) for name in names]
    counted = ("updates", "gradients_present") if counts else ()
    history = GradientHistory(weights, [statistic, "l2_norm", "weight_l2", *counted])
    for r in range(records):
        values = 10.0 ** -np.arange(1.0, LAYERS + 1)
        updates = np.full(LAYERS, 8)
        updates[1] *= r % 2 == 0
        present = updates * (np.arange(LAYERS) != 2)
        values[3] = np.nan if r == records - 1 else 0.0 if r >= 2 else values[3]
        values[present == 0] = np.nan
        given = {statistic: values, "l2_norm": values, "weight_l2": np.ones(LAYERS)}
        given |= {"updates": updates, "gradients_present": present} if counts else {}
        bins = np.zeros((LAYERS, 256), int)
        bins[present > 0, 120] = 9
        history.append(r, 10 * r, given, {"loss": 1.0}, distributions=bins)
    return history


def marks(figure):
    """Return each special value's marks: name → set of (x, y), from either library.

    y is the layer in a heatmap, otherwise the height in the figure's unit.
    """
    found = {}
    if hasattr(figure, "get_axes"):
        for ax in figure.get_axes():
            for line in ax.get_lines():
                if line.get_label() in {one.name for one in SPECIAL}:
                    points = zip(*line.get_data(), strict=True)
                    found.setdefault(line.get_label(), set()).update(points)
    else:
        for trace in figure.data:
            if trace.type == "scatter" and trace.name in {one.name for one in SPECIAL}:
                found.setdefault(trace.name, set()).update(zip(trace.x, trace.y, strict=True))
    return {name: points for name, points in found.items() if points}


def legend(figure):
    """Return the special values that the legend names, in its order."""
    if hasattr(figure, "get_axes"):
        texts = (
            [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []
        )
    else:
        shown = [t for t in figure.data if t.type == "scatter" and t.showlegend is not False]
        texts = [trace.name for trace in sorted(shown, key=lambda t: t.legendrank or 1000)]
    return [text for text in texts if text in {one.name for one in SPECIAL}]


def test_special_values_are_told_apart_whatever_holds_them():
    values = np.array([[one.value for one in SPECIAL], [1.0, -1.0, 1e-300, 5.0, 1e300]])
    for table in (values, values.copy(), values.T.T[::-1][::-1], np.stack([*values])):
        for i, one in enumerate(SPECIAL):
            assert one.found(table).tolist() == [[i == k for k in range(5)], [False] * 5]
    # They are NaN to arithmetic, and no other NaN is one of them.
    own = np.array([NO_PATH.value, NOT_UPDATED.value])
    assert np.isnan(own).all()
    others = np.array([np.nan, -np.nan, float("nan"), np.inf - np.inf])
    assert NAN.found(others).all() and not NAN.found(own).any()


def test_only_missing_gradients_are_replaced():
    values = np.array([1.0, np.nan, np.nan, 0.0])
    missing = np.array(["", "", "no path to the loss", "not updated"], dtype=object)
    marked = with_missing(values, missing)
    assert [one.name for v in marked for one in SPECIAL if one.found(v)] == [
        "NaN",
        "no gradient: no path to the loss",
        "not updated",
    ]
    assert marked[0] == 1 and values[3] == 0


def test_what_is_drawn_of_a_statistic():
    values = layer_values(make_history(), "mean_abs")
    assert_array_equal(NOT_UPDATED.found(values)[:, 1], [False, True] * 3)
    assert NO_PATH.found(values)[:, 2].all() and NO_PATH.found(values).sum() == RECORDS
    assert NAN.found(values).sum() == 1 and ZERO.found(values).sum() == 3
    assert not np.isnan(layer_values(make_history(), "weight_l2")).any()
    without = layer_values(make_history(counts=False), "mean_abs")
    assert NAN.found(without).sum() == 3 + RECORDS + 1


@pytest.mark.parametrize(
    ("statistic", "special"),
    [
        ("mean_abs", (ZERO, NAN, NO_PATH, NOT_UPDATED)),
        ("zero_fraction", (NAN, NO_PATH, NOT_UPDATED)),  # a share of 0 is a share
    ],
)
def test_strips_do_not_overlap_and_zero_is_next_to_the_axis(statistic, special):
    values = layer_values(make_history(statistic=statistic), statistic)
    scale = Scale.of(statistic, [values])
    assert scale.special == special
    bottom = [one for one in (NOT_UPDATED, NO_PATH, ZERO) if one in special]
    heights = np.array([scale.height(one) for one in bottom])
    assert_array_equal(np.diff(heights).round(6), [0.07] * (len(bottom) - 1))
    lowest = scale.heights(np.array([scale.low]))[0]
    assert heights[0] == pytest.approx(0.035) and heights[-1] + 0.035 < lowest
    assert_array_equal(scale.heights(values)[:, 2], [scale.height(NO_PATH)] * RECORDS)


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
@pytest.mark.parametrize("name", OVERTIME)
def test_over_time_each_kind_has_its_marks(half, name):
    history = make_history()
    figure = getattr(half, name)(history)
    assert legend(figure) == [ZERO.name, NAN.name, NO_PATH.name, NOT_UPDATED.name]
    found = marks(figure)
    times = {one: {x for x, _ in found[one]} for one in found}
    assert times[NOT_UPDATED.name] == {1, 3, 5}
    assert times[ZERO.name] == {2, 3, 4} or times[ZERO.name] == {2}  # a heatmap marks some
    assert times[NAN.name] == {5}
    assert {0, 5} <= times[NO_PATH.name] | ({5} if name == "plot_heatmap" else set())


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
@pytest.mark.parametrize("name", [*OVERTIME, "plot_gradient_by_depth"])
def test_a_legend_names_only_what_occurs(half, name):
    draw = getattr(half, name)
    values = np.full((3, 2), 0.5)
    weights = [Weight(n, "kernel", n, (2,)) for n in "ab"]
    for present, expected in (([4, 4], []), ([4, 0], [NO_PATH.name])):
        history = GradientHistory(weights, ["mean_abs", "updates", "gradients_present"])
        for r in range(3):
            row = np.where(np.array(present) > 0, values[r], np.nan)
            counts = {"updates": [4, 4], "gradients_present": present}
            history.append(r, r, {"mean_abs": row} | counts)
        assert legend(draw(history)) == expected


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
def test_cells_of_a_heatmap_have_the_color_of_their_kind(half):
    figure = half.plot_heatmap(make_history())
    cells = {}
    if half is static:
        for mesh in figure.axes[0].collections[1:]:
            color = to_hex(mesh.get_cmap()(0))
            cells[color] = ~np.ma.getmaskarray(mesh.get_array()).reshape(LAYERS, RECORDS)
    else:
        for trace in figure.data:
            if trace.type == "heatmap" and not trace.coloraxis:
                cells[trace.colorscale[0][1]] = np.isfinite(np.array(trace.z, float))
    expected = np.zeros((LAYERS, RECORDS), bool)
    expected[2] = True
    assert_array_equal(cells[to_hex(NO_PATH.color)], expected)
    expected[:] = False
    expected[1, 1::2] = True
    assert_array_equal(cells[to_hex(NOT_UPDATED.color)], expected)


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
def test_against_depth_each_kind_has_its_marks(half):
    history = make_history()
    for figure in (
        half.plot_gradient_by_depth(history, epochs=[0, 3]),
        half.plot_seed_spread([history, make_history()], epochs=[0, 3]),
    ):
        assert legend(figure) == [ZERO.name, NO_PATH.name, NOT_UPDATED.name]
        places = {name: {x for x, _ in points} for name, points in marks(figure).items()}
        assert places == {ZERO.name: {4}, NO_PATH.name: {3}, NOT_UPDATED.name: {2}}


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
def test_lines_end_where_there_is_no_gradient(half):
    figure = half.plot_lines(make_history())
    if half is static:
        lines = [line.get_ydata() for line in figure.axes[0].get_lines()[:LAYERS]]
    else:
        lines = [trace.y for trace in figure.data if trace.mode == "lines"]
    assert_array_equal(np.isfinite(lines[1].astype(float)), [True, False] * 3)
    assert not np.isfinite(lines[2].astype(float)).any()


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
def test_remedies_mark_what_is_missing(half):
    unchanged, changed = make_history(), make_history()
    trials = Trials.ranked(unchanged, [("a change", "", changed)])
    values = trial_values(trials, trials, "mean_abs")
    assert_array_equal(NO_PATH.found(values[1])[:, 2], [True] * RECORDS)
    figure = half.plot_remedies(trials)
    assert {NO_PATH.name, NOT_UPDATED.name} <= set(legend(figure))


def test_columns_without_counts_say_why():
    cells = drawable_cells(make_history(), None, None)
    found = [panel.found for panel in cells.panels]
    assert found[0] == found[3] == found[4] == {}
    assert_array_equal(found[1][NOT_UPDATED], [False, True] * 3)
    assert_array_equal(found[2][NO_PATH], [True] * RECORDS)
    summed = drawable_cells(make_history(), None, None, most=3).panels
    assert summed[1].found == {}  # each column has a record with the layer
    assert_array_equal(summed[2].found[NO_PATH], [True] * 3)
    (at_3,) = drawable_cells(make_history(), None, [3]).panels
    assert_array_equal(at_3.found[NOT_UPDATED], np.arange(LAYERS) == 1)
    assert_array_equal(at_3.found[NO_PATH], np.arange(LAYERS) == 2)


@pytest.mark.parametrize("half", [static, interactive], ids=["static", "interactive"])
def test_distributions_mark_columns_without_a_gradient(half):
    figure = half.plot_distributions(make_history())
    if half is static:
        (texts,) = [[text.get_text() for text in figure.legends[0].get_texts()]]
        assert texts == ["median", NO_PATH.name, NOT_UPDATED.name]
        lines = {ax.get_title(): ax.get_lines()[1:] for ax in figure.axes if ax.get_title()}
        assert [len(one) for one in lines.values()] == [0, 1, 1, 0, 0]
        assert lines["layer_1"][0].get_xdata().tolist() == [1, 3, 5]
        assert lines["layer_2"][0].get_marker() == NO_PATH.marker
    else:
        assert legend(figure) == [NO_PATH.name, NOT_UPDATED.name]
        (absent,) = [t for t in figure.data if t.name == NOT_UPDATED.name]
        assert [*absent.x] == [1, 3, 5]
        assert "not updated" in absent.hovertemplate


def test_thinning_keeps_missing_gradients():
    history = make_history(1000)
    values = layer_values(history, "mean_abs")
    scale = Scale.of("mean_abs", [values])
    columns = Columns.of(values, history.epochs, scale, 20)
    assert columns.found[NO_PATH][:, 2].all()
    assert columns.found[NOT_UPDATED][:, 1].all() and not columns.found[NOT_UPDATED][:, 0].any()
    assert np.isfinite(columns.values[:, 1]).any()


def test_the_first_record_of_each_kind_is_notable():
    values = np.ones((200, 2))
    values[50, 0], values[61, 0], values[72, 1] = np.nan, NO_PATH.value, NOT_UPDATED.value
    assert {50, 61, 72} <= set(notable_records(values, 8).tolist())


@pytest.mark.parametrize(
    ("reason", "verdict", "text"),
    [
        ("no path to the loss", "no path", "no path"),
        ("not updated", "not updated", "no update"),
        ("none of its weights was recorded", "not measured", None),
    ],
)
def test_a_norm_that_is_missing_has_a_verdict(reason, verdict, text):
    norm = drawn_norm(None, reason)
    assert verdict_of(norm, 0.1) == verdict
    assert text is None or text_of(norm) == text
    assert drawn_norm(0.5, "") == 0.5
    assert verdict_of(np.nan, 0.1) == "NaN" and text_of(np.nan) == "NaN"
    assert verdict_of(np.inf, 0.1) == "infinite" and text_of(np.inf) == INFINITE.short


def test_the_static_flow_graph_marks_nodes_without_a_gradient():
    figure = static.plot_flow_graph(flow_graph_from_history(make_history(), epoch=3))
    ax = figure.axes[0]
    # The arrowheads on the edges are named by their gid; they show the direction, no special value.
    arrowheads = {"data", "gradient"}
    drawn = [line.get_marker() for line in ax.get_lines() if line.get_gid() not in arrowheads]
    assert sorted(drawn) == sorted([NO_PATH.marker, NOT_UPDATED.marker, ZERO.marker])
    texts = [text.get_text() for text in ax.texts]
    assert {"layer_1\nno update", "layer_2\nno path", "layer_3\n∂W 0"} <= set(texts)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {NO_PATH.name, NOT_UPDATED.name} <= set(names) and "node: not measured" not in names


def test_the_interactive_flow_graph_marks_nodes_at_every_record():
    drawing = FlowDrawing(flow_graph_from_history(make_history()))
    for r in range(RECORDS):
        verdicts = drawing.nodes.drawn("verdict", r)
        assert verdicts[1] == ("above", "not updated")[r % 2]
        assert verdicts[2] == "no path"
        hovers = drawing.nodes.hovers(r, f"epoch {r}")
        assert hovers[2] == f"epoch {r}: no gradient: no path to the loss"
        assert drawing.nodes.shown(r)[1] == ("0.01", "no update")[r % 2]
    names = [trace.name for trace in interactive.plot_flow_graph(
        flow_graph_from_history(make_history())
    ).data if trace.showlegend is not False]  # fmt: skip
    assert {NO_PATH.name, NOT_UPDATED.name} <= set(names)
    # A page's script reads numbers of looks and finite logarithms.
    logs = np.frombuffer(base64.b64decode(drawing.nodes.to_json(range(RECORDS))["logs"]), "<f4")
    assert np.isfinite(logs).all()
