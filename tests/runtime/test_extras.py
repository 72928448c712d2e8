"""Extras: requirements that are for another machine are none of ours."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import pytest

from limpet.runtime import extras

REQUIREMENTS = [
    "numpy>=1.26",
    'tomli>=2.0; python_version < "3.11"',
    'open3d-cpu>=0.19; (sys_platform == "linux" and platform_machine == "x86_64") and '
    'extra == "training"',
    'open3d>=0.19; (sys_platform != "linux" or platform_machine != "x86_64") and '
    'extra == "training"',
    'pillow>=10.0; extra == "training"',
]


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", "open3d-cpu"),
        ("linux", "aarch64", "open3d"),
        ("darwin", "arm64", "open3d"),
        ("darwin", "x86_64", "open3d"),
    ],
)
def test_markers_choose_what_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, wanted: str
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIREMENTS)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    found = extras.requirements.__wrapped__()
    assert found["training"] == {wanted: ">=0.19", "pillow": ">=10.0"}
    assert ("tomli" in found[""]) == (sys.version_info < (3, 11))
    assert extras.module_of(wanted) == "open3d"
    assert extras.module_of("pillow") == "PIL"


def test_a_module_of_two_extras_is_not_asked_of_the_developer_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {"": {}, "dev": {"scipy": "", "mypy": ""}, "training": {"scipy": ""}}
    monkeypatch.setattr(extras, "requirements", lambda: table)
    assert extras.extra_of("scipy.spatial", "export") == "training"
    assert extras.extra_of("scipy", "dev") == "dev"
    assert extras.extra_of("mypy") == "dev"
    assert extras.extra_of("nothing") is None
