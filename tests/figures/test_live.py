"""A run while it trains: the HTML and the text, read back."""

import base64
import io
import re
from xml.etree import ElementTree

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import seaborn as sns
from figures.static.test_gradients import magnitudes, make_history
from matplotlib.image import imread
from numpy.testing import assert_allclose
from rich.console import Console

from kgrad.figures.live import as_html, as_text
from kgrad.records.history import GradientHistory, Weight

EVIL = "<script>$\\frac$"


def with_loss(values, losses, names=None):
    names = names or [f"dense_{i}" for i in range(values.shape[1])]
    history = GradientHistory([Weight(n, "scale", f"{n}/scale", (1,)) for n in names], ["mean_abs"])
    for i, (row, loss) in enumerate(zip(values, losses, strict=True)):
        history.append(i, 10 * i, {"mean_abs": row}, {"loss": loss})
    return history


def parts(html, name):
    return list(ElementTree.fromstring(html).iter(f"{{http://www.w3.org/2000/svg}}{name}"))


def picture(html):
    data = parts(html, "image")[0].get("href").partition(",")[2]
    return imread(io.BytesIO(base64.b64decode(data)))


def printed(renderable):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(renderable)
    return console.file.getvalue().splitlines()


def test_a_pixel_per_layer_and_record_has_the_color_of_its_magnitude():
    values = 10.0 ** np.array([[-4.0, 0.0], [-2.0, 0.0], [0.0, -4.0]])
    colors = picture(as_html(make_history(values)))
    assert colors.shape == (2, 3, 4)
    ramp = sns.color_palette("viridis", as_cmap=True)
    for layer in range(2):
        for record in range(3):
            share = (np.log10(values[record, layer]) + 4) / 4
            assert_allclose(colors[layer, record], ramp(share), atol=1 / 64)


def test_special_values_have_their_own_colors_and_are_named():
    html = as_html(make_history(np.array([[1.0, 0.1], [0.0, np.nan], [1.0, np.inf]])))
    colors = picture(html)
    assert_allclose(colors[0, 1], [0, 0, 0, 1])
    assert_allclose(colors[1, 1], [0.35, 0.35, 0.35, 1], atol=1 / 128)
    assert len({tuple(color) for color in colors.reshape(-1, 4)}) == 5
    assert {"0", "NaN", "∞"} <= {text.text for text in parts(html, "text")}


def test_the_loss_is_a_line_that_ends_where_it_is_not_finite():
    values = magnitudes(6, 2)
    html = as_html(with_loss(values, [4.0, 3.0, np.nan, 2.0, 1.0, 1.0]))
    lines = [
        np.array([point.split(",") for point in line.get("points").split()], float)
        for line in parts(html, "polyline")
    ]
    assert [len(line) for line in lines] == [2, 3]
    heights = np.concatenate(lines)[:, 1]  # downwards in SVG
    assert_allclose(np.diff(heights) / np.diff(heights)[0], [1, 1, 1, 0], atol=0.05)
    assert "loss 1" in ElementTree.fromstring(html)[0].text


def test_names_and_findings_are_text():
    html = as_html(with_loss(magnitudes(2, 2), [1, 1], [EVIL, "b"]), [EVIL], EVIL)
    page = ElementTree.fromstring(html)
    assert not [one for one in page.iter() if one.tag.endswith("script")]
    assert "".join(page.itertext()).count(EVIL) == 3
    assert (
        "\n".join(
            printed(as_text(with_loss(magnitudes(2, 2), [1, 1], ["[red]a", "b"]), ["[bold]x"]))
        ).count("[")
        == 2
    )


def test_a_terminal_has_a_row_per_layer_and_a_letter_per_record():
    values = np.array([[1e-4, 1.0], [1e-2, 0.0], [1.0, np.nan]])
    first, loss, *layers, key = printed(as_text(with_loss(values, [3.0, 2.0, 1.0])))
    assert first == "epoch 2, step 20: loss 1"
    assert loss.split() == ["loss", "█▅▁"]
    assert [row.split() for row in layers] == [
        ["dense_0", "▁▅█", "1.0e+00"],
        ["dense_1", "█0×", "nan"],
    ]
    assert "0 0 (exactly), × NaN" in key


@pytest.mark.parametrize("records", [1, 5, 3000])
def test_the_picture_and_the_text_are_small_however_long_the_run(records):
    history = with_loss(magnitudes(records, 200), np.ones(records))
    html = as_html(history)
    assert picture(html).shape[1] <= 210
    assert len(html) < 200_000
    rows = printed(as_text(history, width=80))
    assert len(rows) < 25
    assert max(map(len, rows)) <= 80
    assert re.match(r"epoch \d+", rows[0])
