"""The look that both libraries share."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

from kgrad.figures.looks import SERIES, STYLE, shortened


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("hidden_1", "hidden_1"),
        ("encoder/block_1/attention/query", "e/b_1/attention/query"),
        ("multi_head_attention_3/attention_output", "mha_3/attention_output"),
        ("transformer_block/multi_head_attention/query", "tb/mha/query"),
        ("batch_normalization", "batch_norm"),
        ("layer_normalization_12", "layer_norm_12"),
        ("normalization_1", "normalization_1"),
        ("a_very_long_name_of_one_layer_alone", "…one_layer_alone"),
        ("2/a_very_long_name_of_one_layer", "…me_of_one_layer"),
    ],
)
def test_a_long_name_keeps_what_tells_layers_apart(name, short):
    assert shortened(name) == short


def test_a_figure_of_ones_own_takes_the_look():
    with matplotlib.rc_context(), plt.style.context(STYLE):
        figure, ax = plt.subplots()
        lines = [ax.plot([0, 1])[0].get_color() for _ in SERIES]
        assert not ax.spines["top"].get_visible()
        plt.close(figure)
    assert tuple(lines) == SERIES
