"""Waiting for a page: from here, as one that forbids `eval` cannot be polled from within."""

import time


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
