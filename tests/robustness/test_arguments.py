"""Arguments of the wrong kind: one sentence that names the argument, before anything runs."""

import keras
import numpy as np
import pytest

import kgrad
from kgrad.records.history import GradientHistory, Weight

X, Y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
WEIGHTS = [Weight("a", "kernel", "a/kernel", (2,))]


def model():
    return kgrad.create_model(1, "relu", "he", units=4, input_shape=(2,), seed=0)


def train(**options):
    return kgrad.train_and_track_gradients(model(), X, Y, 1, **options)


def history():
    made = GradientHistory(WEIGHTS, ["mean_abs"])
    made.append(0, 0, {"mean_abs": [1.0]})
    return made


WRONG = {
    "title must be a text, received None": lambda: kgrad.visualize_gradients(history(), None),
    "title must be a text, received 3": lambda: kgrad.interactive.plot_lines(history(), title=3),
    "optimizer must be a Keras optimizer": lambda: train(optimizer={}),
    "loss must be a Keras loss": lambda: train(loss={}),
    "journal must be a path, such as 'run.jsonl', received True": lambda: train(journal=True),
    "journal must be a path, such as 'run.jsonl', received 1": lambda: kgrad.GradientTracker(
        journal=1
    ),
    "journal must be a path without a zero character": lambda: train(journal="a\0b"),
    "log_dir must be a path": lambda: kgrad.GradientTracker(log_dir=3),
    "path must be a path, such as 'run.jsonl', received b'x'": lambda: GradientHistory.load(b"x"),
    "path must be a path, such as 'run.jsonl', received 2": lambda: history().save(2),
    "activation must be a name": lambda: kgrad.create_model(1, {}, "he"),
    "activation must map a tensor": lambda: kgrad.create_model(1, len, "he"),
    "weight_initializer must be a name": lambda: kgrad.create_model(1, "relu", int),
    "weights must be kgrad.Weight": lambda: GradientHistory([("a", "k", "p", (2,))], ["mean_abs"]),
    "statistics must be a sequence of names, received 'l2'": lambda: GradientHistory(WEIGHTS, "l2"),
    "graph must be a graph from flow_graph, received None": lambda: kgrad.graph_to_json(None),
    "predictions must be a mapping": lambda: kgrad.write_report(
        [history()], "unwritten.html", predictions=[1]
    ),
    'skip_connections must be True or False, received "off"': lambda: kgrad.create_model(
        2, "relu", "he", skip_connections="off"
    ),
    'distributions must be True or False, received "off"': lambda: train(distributions="off"),
    "clipped must be None, True or False": lambda: train(clipped="off"),
    "shuffle must be True or False": lambda: train(shuffle="off"),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_an_argument_of_the_wrong_kind_is_named(sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError)) as raised:
        WRONG[sentence]()
    said = str(raised.value)
    assert said.replace("'off'", '"off"').startswith(sentence)
    assert "\n" not in said and len(said) < 300
    assert list(tmp_path.iterdir()) == []


def test_what_is_of_the_right_kind_is_taken(tmp_path):
    own = keras.initializers.get("he_normal")
    kgrad.create_model(1, lambda x: x, own, units=4)
    assert len(train(journal=str(tmp_path / "a.jsonl"), shuffle=False, clipped=None)) == 2
