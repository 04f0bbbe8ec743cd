"""The look that both libraries share."""

from kgrad.figures.looks import shortened


def test_long_names_keep_their_ends():
    assert shortened("encoder/block_1/attention/query") == "…attention/query"
    assert shortened("dense_1") == "dense_1"
