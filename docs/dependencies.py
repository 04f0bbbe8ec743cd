"""Print what a core install of kgrad adds to an environment that has TensorFlow.

    python docs/dependencies.py

Reads the metadata of what is installed here, which must include TensorFlow. docs/design.md has the
output, with the versions that constraints.txt pins; a test compares them.
"""

from collections.abc import Iterator
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(name: str) -> set[str]:
    """Return what a distribution requires in this environment, without extras."""
    requirements = map(Requirement, distribution(name).requires or ())
    return {
        canonicalize_name(one.name)
        for one in requirements
        if one.marker is None or one.marker.evaluate({"extra": ""})
    }


def with_all_required(name: str) -> set[str]:
    """Return a distribution's name and those of everything that it requires, directly or not."""
    found: set[str] = set()
    pending = {canonicalize_name(name)}
    while pending:
        one = pending.pop()
        found.add(one)
        pending |= required(one) - found
    return found


def table() -> Iterator[str]:
    """Yield the lines of a Markdown table: each added package and which of the added need it."""
    added = with_all_required("kgrad") - with_all_required("tensorflow")
    yield "| package | required by |"
    yield "|---|---|"
    for name in sorted(added - {"kgrad"}):
        yield f"| {name} | {', '.join(sorted(one for one in added if name in required(one)))} |"


if __name__ == "__main__":
    print("\n".join(table()))
