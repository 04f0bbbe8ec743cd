"""`TensorBoardWriter`, read back with TensorBoard's own two readers."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.data import provider, server_ingester
from tensorboard.util import grpc_util, tensor_util

from kgrad.measure.event_files import TensorBoardWriter

TREE = Path(__file__).parents[2]


def events(log_dir):
    """What TensorBoard's reader in Python finds: tag → list of (step, value)."""
    reader = EventAccumulator(str(log_dir), size_guidance={TENSORS: 0}).Reload()
    return {
        tag: [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in reader.Tensors(tag)]
        for tag in reader.Tags()[TENSORS]
    }


def counts(**filled):
    """256 bins, of which the named ones are not empty: counts(b126=3)."""
    bins = np.zeros(256, dtype=np.int64)
    for name, count in filled.items():
        bins[int(name[1:])] = count
    return bins


def write_histogram(log_dir, bins):
    writer = TensorBoardWriter(log_dir)
    writer.exponent_histograms(0, {"h": bins})
    writer.close()
    return events(log_dir)


def test_numbers_come_back_by_tag_and_step_while_the_file_is_still_open(tmp_path):
    writer = TensorBoardWriter(tmp_path / "new" / "folder")
    writer.scalars(0, {"grad/l2_norm": 0.1, "grad/mean_abs/dense": np.float32(3)})
    writer.scalars(np.int64(2**40), {"grad/l2_norm": 7})
    assert events(tmp_path / "new" / "folder") == {
        "grad/l2_norm": [(0, np.float32(0.1)), (2**40, 7.0)],
        "grad/mean_abs/dense": [(0, 3.0)],
    }
    writer.close()


def test_the_file_says_in_which_format_it_is(tmp_path):
    TensorBoardWriter(tmp_path).close()
    assert EventAccumulator(str(tmp_path)).Reload().file_version == 2


def test_numbers_that_are_not_finite_or_no_float32_are_numbers(tmp_path):
    writer = TensorBoardWriter(str(tmp_path))
    for step, value in enumerate([np.nan, np.inf, -np.inf, 1e300, 1e-40, 1e-300]):
        writer.scalars(step, {"x": value})
    writer.close()
    values = [value for _, value in events(tmp_path)["x"]]
    expected = [np.nan, np.inf, -np.inf, np.inf, 1e-40, 0]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=0)


def test_buckets_are_those_of_the_exponents_from_the_first_that_is_not_empty_to_the_last(tmp_path):
    (step, buckets), *others = write_histogram(tmp_path, counts(b126=5, b128=2))["h"]
    half, two = np.log10([0.5, 2])
    assert (step, others) == (0, [])
    assert buckets.dtype == np.float64
    expected = [[half, 0, 5], [0, two, 0], [two, 2 * two, 2]]
    np.testing.assert_allclose(buckets, expected, rtol=1e-15)


def test_a_bucket_holds_the_entries_between_its_edges(tmp_path, random):
    entries = random.normal(size=5000).astype(np.float32) * np.float32(1e-20)
    exponents = (
        np.frexp(entries)[1] + 126
    )  # frexp's mantissas lie in [1/2, 1), a float32's in [1, 2)
    bins = np.bincount(exponents, minlength=256)
    ((_, buckets),) = write_histogram(tmp_path, bins)["h"]
    left, right, found = buckets.T
    np.testing.assert_array_equal(left[1:], right[:-1])
    magnitudes = np.log10(np.abs(entries.astype(np.float64)))
    expected, _ = np.histogram(magnitudes, [*left, right[-1]])
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == 5000


def test_one_bin_is_one_bucket_of_some_width_at_both_ends_of_float32_too(tmp_path):
    ends = {"tiny": counts(b1=1), "huge": counts(b254=1)}
    writer = TensorBoardWriter(tmp_path)
    writer.exponent_histograms(3, ends)
    writer.close()
    found = events(tmp_path)
    float32 = np.finfo(np.float32)
    for tag, inside in ("tiny", float32.smallest_normal), ("huge", float32.max):
        ((step, ((left, right, count),)),) = found[tag]
        assert (step, count) == (3, 1)
        assert left - 1e-9 <= np.log10(float(inside)) <= right + 1e-9
        assert right - left == pytest.approx(np.log10(2))


def test_zeros_and_what_is_not_finite_have_no_bucket(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    writer.exponent_histograms(0, {"a": counts(b0=9, b100=1, b255=4), "b": counts(b0=9, b255=4)})
    writer.exponent_histograms(1, {"a": counts(b0=10), "b": counts()})
    writer.exponent_histograms(2, {"a": counts(b0=8, b101=2), "b": counts(b101=1)})
    writer.close()
    found = events(tmp_path)
    assert [(step, buckets[:, 2].tolist()) for step, buckets in found["a"]] == [(0, [1]), (2, [2])]
    assert [(step, buckets[:, 2].tolist()) for step, buckets in found["b"]] == [(2, [1])]


@pytest.fixture
def served(tmp_path):
    """The reader behind TensorBoard's pages, a program in Rust, on the folder `tmp_path / "logs"`.

    It passes over what it does not expect, such as numbers in float64, without a word.
    """
    try:
        program = server_ingester.get_server_binary().path
    except server_ingester.NoDataServerError:
        pytest.skip("TensorBoard has this reader for Linux and macOS only")
    port_file = tmp_path / "port"
    arguments = [f"--logdir={tmp_path / 'logs'}", "--reload=1", "--port=0"]
    process = subprocess.Popen([program, *arguments, f"--port-file={port_file}"])
    try:
        wait_until(lambda: port_file.exists() and port_file.read_text().endswith("\n"))
        yield server_ingester.ExistingServerDataIngester(
            f"localhost:{int(port_file.read_text())}",
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        ).data_provider
    finally:
        process.terminate()
        process.wait()


def wait_until(ready, seconds=30):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_pages_find_all_of_it(tmp_path, served):
    writer = TensorBoardWriter(tmp_path / "logs" / "run")
    for step in range(3):
        writer.scalars(step, {"grad/l2_norm": 10.0**-step, "grad/nonfinite": np.nan})
        writer.exponent_histograms(step, {"grad/log10_abs/dense": counts(b126=step + 1)})
    where = {"experiment_id": ""}
    tags = provider.RunTagFilter(runs=["run"])

    def histograms():
        found = served.read_tensors(
            None, plugin_name="histograms", downsample=9, run_tag_filter=tags, **where
        )
        return found.get("run", {}).get("grad/log10_abs/dense", [])

    wait_until(lambda: len(histograms()) == 3)
    assert [(e.step, e.numpy[0, 2]) for e in histograms()] == [(0, 1), (1, 2), (2, 3)]
    scalars = served.read_scalars(
        None, plugin_name="scalars", downsample=9, run_tag_filter=tags, **where
    )["run"]
    found = {tag: [(e.step, e.value) for e in series] for tag, series in scalars.items()}
    assert found["grad/l2_norm"] == [(0, 1.0), (1, np.float32(0.1)), (2, np.float32(0.01))]
    assert np.isnan([value for _, value in found["grad/nonfinite"]]).tolist() == [True] * 3
    about = served.list_tensors(None, plugin_name="histograms", **where)["run"]
    assert "0 or below 2^-126" in about["grad/log10_abs/dense"].description
    writer.close()


def test_what_surrounds_the_call_does_not_stop_it(tmp_path):
    """Keras's TensorBoard callback sets both: a writer and a condition to write."""
    tf = pytest.importorskip("tensorflow")
    writer = TensorBoardWriter(tmp_path / "a")
    other = tf.summary.create_file_writer(str(tmp_path / "b"))
    with other.as_default(step=5), tf.summary.record_if(False), tf.Graph().as_default():
        writer.scalars(1, {"x": 1.0})
        writer.exponent_histograms(1, {"h": counts(b126=1)})
    assert {tag: len(found) for tag, found in events(tmp_path / "a").items()} == {"x": 1, "h": 1}
    assert events(tmp_path / "b") == {}
    writer.close()


def test_two_writers_on_one_folder_leave_each_other_alone(tmp_path):
    first, second = TensorBoardWriter(tmp_path), TensorBoardWriter(tmp_path)
    first.scalars(0, {"first": 1.0})
    second.scalars(0, {"second": 2.0})
    first.close()
    first.close()
    second.close()
    assert events(tmp_path) == {"first": [(0, 1.0)], "second": [(0, 2.0)]}


KILLED = """
import sys
import numpy as np
from kgrad.measure.event_files import TensorBoardWriter
writer = TensorBoardWriter(sys.argv[1])
for step in range(10**9):
    writer.scalars(step, {"x": step})
    writer.exponent_histograms(step, {"h": np.full(256, step + 1)})
    print(step, flush=True)
"""


def test_what_is_killed_leaves_all_that_it_finished(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = [int(process.stdout.readline()) for _ in range(20)]
        finally:
            process.kill()
        said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    assert process.returncode == -signal.SIGKILL
    found = events(tmp_path)
    assert found["x"][: len(said)] == [(step, float(step)) for step in said]
    assert len(found["x"]) <= len(said) + 1
    finished = found["h"][: len(said)]
    assert [(step, buckets[:, 2].tolist()) for step, buckets in finished] == [
        (step, [step + 1] * 254) for step in said
    ]


def test_a_torn_last_event_is_ignored(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    for step in range(3):
        writer.scalars(step, {"x": step, "y": -step})
    writer.close()
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 1)
    assert events(tmp_path) == {"x": [(0, 0.0), (1, 1.0)], "y": [(0, 0.0), (1, -1.0)]}


@pytest.mark.parametrize(
    ("folder", "reason"), [("file", "File exists"), ("file/folder", "Not a directory")]
)
def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path, folder, reason):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / folder)
    message = rf"^log_dir must be a folder that .*, received '{re.escape(path)}': {reason}$"
    with pytest.raises(OSError, match=message):
        TensorBoardWriter(path)


@pytest.mark.parametrize("address", ["gs://bucket/logs", Path("s3://bucket/logs"), "hdfs://a/b"])
def test_an_address_is_refused_and_makes_no_folder_of_its_name(tmp_path, address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^log_dir must be .* this machine, received '{address}'"):
        TensorBoardWriter(address)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_an_os_error(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars(0, {"x": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (file,) = tmp_path.iterdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^log_dir must be .*: .*File too large$"):
            writer.scalars(1, {"x": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.close()
    assert events(tmp_path) == {"x": [(0, 1.0)]}


NO_TENSORBOARD = """
import sys
sys.modules["tensorboard"] = None  # an import of it is an error
from kgrad import GradientTracker
GradientTracker()
try:
    GradientTracker(log_dir=sys.argv[1])
except ModuleNotFoundError as error:
    print(error)
"""


def test_a_tracker_without_the_package_says_what_to_install(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    command = [sys.executable, "-c", NO_TENSORBOARD, str(tmp_path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == (
        'log_dir needs tensorboard: pip install -e ".[tensorboard]" in your checkout of kgrad\n'
    )
    assert list(tmp_path.iterdir()) == []


WITHOUT_BACKEND = """
import sys
for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None  # an import of it is an error
from kgrad.measure.event_files import TensorBoardWriter
TensorBoardWriter(sys.argv[1]).scalars(1, {"x": 2.0})
"""


def test_keras_and_a_backend_are_not_needed_to_write(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    command = [sys.executable, "-c", WITHOUT_BACKEND, str(tmp_path)]
    subprocess.run(command, env=environment, check=True)
    assert events(tmp_path) == {"x": [(1, 2.0)]}
