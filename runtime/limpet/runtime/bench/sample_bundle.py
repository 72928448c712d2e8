"""The bundle that `limpet bench stream` makes where it is given none.

What a row costs depends on the sizes of chain and network, which are the defaults, and not on the
weights. So a few training steps on made-up vibration are enough for speed, and far too few to
detect anything.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import MissingExtraError, UsageError
from limpet.runtime.demo.children import Children
from limpet.runtime.extras import module_of, requirements

STEPS = 20
SECONDS, LEAST_ROWS, MOST_ROWS = 16, 1600, 256_000
"""Length of the recording, which is also what the streams play: in time, within these rows."""
EXTRAS = ("training", "export")


def check_extras() -> None:
    """Raises `MissingExtraError` where this installation cannot make a bundle."""
    for extra in EXTRAS:
        for distribution in requirements().get(extra, {}):
            module = module_of(distribution)
            if importlib.util.find_spec(module) is None:
                error = MissingExtraError(extra, module)
                error.hint += ", or name a bundle: limpet bench stream --bundle BUNDLE"
                raise error


def make_bundle(
    children: Children, folder: Path, channels: int, rate_hz: float
) -> tuple[Bundle, NDArray[np.float32]]:
    """Trains and exports in processes of their own, and gives the rows that it trained on.

    Args:
        children: Runs them.
        folder: Takes recording, run and bundle.
        channels: Of the recording.
        rate_hz: Its rate.

    Returns:
        The bundle and normal rows for it, which go on with the first after the last.
        (n, channels)

    Raises:
        MissingExtraError: An extra is not installed.
        ChildError: Training or export failed.
    """
    check_extras()
    rows = made_up_vibration(channels, min(max(LEAST_ROWS, round(SECONDS * rate_hz)), MOST_ROWS))
    recording, run, bundle = folder / "normal.npy", folder / "run", folder / "bundle"
    np.save(recording, rows)
    train = children.limpet(
        "train", "train", "anomaly", "--data", recording, "--rate-hz", repr(rate_hz),
        "--steps", str(STEPS), "--out", run,
    )  # fmt: skip
    children.wait([train])
    children.wait([children.limpet("export", "export", run, "--out", bundle)])
    return read_bundle(bundle), rows.astype(np.float32)


def made_up_vibration(channels: int, rows: int) -> NDArray[np.float64]:
    """Sines that fit whole periods into the rows, and noise. (rows, channels)"""
    rng = np.random.default_rng(0)
    turns = np.arange(rows)[:, None] / rows
    periods = rng.integers(20, 200, size=(3, 1, channels))
    phases = rng.uniform(0.0, 2 * np.pi, size=(3, 1, channels))
    sines = np.sin(2 * np.pi * periods * turns + phases).sum(axis=0)
    return np.asarray(sines + rng.normal(scale=0.3, size=(rows, channels)))


def golden_rows(bundle: Bundle) -> NDArray[np.float32]:
    """Normal rows of a bundle's golden data, there and back, so that they go on without a jump.

    The last quarter of golden data holds an anomaly; rows with holes are left out.

    Returns:
        (n, channels)

    Raises:
        UsageError: It has none.
    """
    rows = bundle.golden().signal_rows
    if bundle.manifest.kind != "anomaly" or rows is None:
        raise UsageError(
            f"--bundle {bundle.path} is {bundle.manifest.kind}, wanted an anomaly bundle with "
            "golden rows",
            "make one: limpet train anomaly …, then limpet export",
        )
    normal = rows[: len(rows) // 2]
    normal = normal[np.isfinite(normal).all(axis=1)].astype(np.float32)
    return np.concatenate([normal, normal[::-1]])
