"""Figures of an image encoder and its policy, measured, in the RUN that its bundle is made from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from limpet.contracts.errors import UsageError
from limpet.export.evaluate_navigation import NavigationEvaluation
from limpet.training.navigation.policy_train import load_policy, write_record
from limpet.training.run import RunFolder


def check_recordable(model: Path) -> None:
    """Refuses what no figures can be written into, before they are measured.

    Raises:
        DataError: No finished RUN.
        UsageError: A bundle, which never changes once it is made.
    """
    if (model / "manifest.json").exists():
        raise UsageError(
            f"{model} is a bundle, which no figures are written into",
            "evaluate its RUN with --record, then export it",
        )
    RunFolder(model).read_complete()


def record_figures(run: Path, found: NavigationEvaluation) -> None:
    """Writes what was measured into a RUN: of the encoder, and of its policy where that drove.

    Args:
        run: The RUN that was evaluated.
        found: What was measured on it.
    """
    folder = RunFolder(run)
    record = folder.read_complete()
    figure = {f"{Path(found.data).name}, {found.poses} poses: Spearman": found.embedding.spearman}
    folder.write_record(
        msgspec.structs.replace(record, metrics={**record.metrics, **rounded(figure)})
    )
    policy = load_policy(run)
    if found.driving is None or policy is None:
        return
    first, stop = found.driving.layouts
    overall = found.driving.overall
    where = f"unseen layouts {first} to {stop - 1}, unseen appearances, {overall.episodes} episodes"
    figures = {
        f"{where}: success rate": overall.sr.mean,
        f"{where}: SPL": overall.spl.mean,
        f"{where}: contacts": overall.contacts,
    }
    metrics = {**policy.record.metrics, **rounded(figures)}
    write_record(run, msgspec.structs.replace(policy.record, metrics=metrics))


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """To as many digits as mean something."""
    return {name: round(value, 4) for name, value in figures.items()}
