"""Optional dependencies: which extra brings a module, and whether it is here.

The table is the distribution's own metadata, so it cannot differ from what pip installs.
"""

from __future__ import annotations

import operator
import platform
import re
import sys
from functools import cache
from importlib import metadata

# Where the name to import is not that of the distribution.
_MODULES = {
    "cuda-python": "cuda",
    "pyzmq": "zmq",
    "open3d-cpu": "open3d",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "tensorboardx": "tensorboardX",
    "pytest-timeout": "pytest_timeout",
}

_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")


@cache
def requirements() -> dict[str, dict[str, str]]:
    """Distribution to version specifier (`>=2.9`), by extra; the base ones under an empty name."""
    by_extra: dict[str, dict[str, str]] = {"": {}}
    for requirement in metadata.requires("limpet") or []:
        what, _, marker = requirement.partition(";")
        name, versions = re.fullmatch(r"\s*([\w.-]+)\s*(.*?)\s*", what).groups()  # type: ignore[union-attr]
        extra = _EXTRA.search(marker)
        if _excludes_us(marker):
            continue
        by_extra.setdefault(extra[1] if extra else "", {})[name] = versions
    return by_extra


def module_of(distribution: str) -> str:
    """Name to import of a distribution."""
    return _MODULES.get(distribution, distribution.replace("-", "_"))


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version keeps the bounds of a specifier such as `>=0.17,<0.18`.

    Only numbers are compared, which is all that our bounds consist of.
    """

    def numbers(text: str) -> tuple[int, ...]:
        release = re.match(r"\d+(\.\d+)*", text)
        parts = [int(part) for part in release[0].split(".")] if release else []
        return tuple(parts + [0] * (4 - len(parts)))

    compare = {">=": operator.ge, "<": operator.lt, "==": operator.eq, "!=": operator.ne}
    bounds = re.findall(r"(>=|<|==|!=)\s*([\w.]+)", specifier)
    return all(compare[sign](numbers(version), numbers(bound)) for sign, bound in bounds)


def extra_of(module: str, portion: str = "") -> str | None:
    """Name of the extra that brings `module`, None where none does.

    Args:
        module: Dotted name of what could not be imported.
        portion: Extra to prefer where several bring it.
    """
    root = module.partition(".")[0]
    extras = [
        extra
        for extra, wanted in requirements().items()
        if extra and root in {module_of(name) for name in wanted}
    ]
    if portion in extras:
        return portion
    return min(extras, key="dev".__eq__, default=None)  # a developer's tools only where none else


def _excludes_us(marker: str) -> bool:
    """Whether a marker, extras aside, is for another Python or another machine.

    Understood is what our own markers consist of: `python_version <`, `sys_platform` and
    `platform_machine` with `==` and `!=`, `and` or `or` between them, never both but for the extra.
    """
    bound = re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]", marker)
    if bound is not None:
        return sys.version_info[:2] >= (int(bound[1]), int(bound[2]))
    here = {"sys_platform": sys.platform, "platform_machine": platform.machine()}
    holds = [
        (here[name] == value) == (sign == "==")
        for name, sign, value in re.findall(
            r"(sys_platform|platform_machine)\s*([!=]=)\s*['\"]([\w.]+)['\"]", marker
        )
    ]
    either = any if re.search(r"\bor\b", marker) else all
    return bool(holds) and not either(holds)
