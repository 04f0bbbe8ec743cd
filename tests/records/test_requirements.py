"""The commands that say what to install are right for where kgrad was installed from."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from kgrad.records.requirements import how_to_install

CHECKOUT = 'pip install -e ".[app]" in your checkout of kgrad'


def installed_from(monkeypatch, origin):
    """Let kgrad's direct_url.json, which pip and uv write, be this one; None: there is none."""

    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr("kgrad.records.requirements.distribution", lambda name: Distribution())


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"url": "file:///home/me/kgrad", "dir_info": {"editable": True}}, CHECKOUT),
        ({"url": "file:///home/me/kgrad", "dir_info": {}}, CHECKOUT),
        (
            {"url": "file:///home/me/kgrad-0.1.0-py3-none-any.whl", "archive_info": {}},
            'pip install "kgrad-0.1.0-py3-none-any.whl[app]"',
        ),
        (
            {"url": "ssh://git@example.org/kgrad.git", "vcs_info": {"vcs": "git"}},
            'pip install "kgrad[app] @ git+ssh://git@example.org/kgrad.git"',
        ),
        (None, 'pip install "kgrad[app]"'),
    ],
    ids=["editable", "folder", "wheel", "git", "index"],
)
def test_the_command_is_right_for_the_origin(monkeypatch, tmp_path, origin, command):
    installed_from(monkeypatch, origin)
    monkeypatch.setattr("kgrad.records.requirements._ROOT", tmp_path)
    assert how_to_install("app") == command


def test_a_checkout_on_the_path_is_not_installed(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("kgrad.records.requirements.distribution", missing)
    assert how_to_install("app") == CHECKOUT


def test_an_egg_info_in_a_checkout_is_no_installation(monkeypatch):
    installed_from(monkeypatch, None)
    assert how_to_install("app") == CHECKOUT


def test_alternatives_are_in_parentheses(monkeypatch):
    installed_from(monkeypatch, {"url": "file:///k.whl", "archive_info": {}})
    expected = 'pip install "k.whl[tensorflow]" (or "k.whl[jax]", "k.whl[torch]")'
    assert how_to_install("tensorflow", "jax", "torch") == expected
