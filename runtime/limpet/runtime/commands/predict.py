"""`limpet predict`: offline scores of recordings, embeddings of images."""

from __future__ import annotations

from pathlib import Path

import click

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.reports import write_json
from limpet.contracts.scores_file import SUFFIXES
from limpet.runtime.commands import engine_option, force_option, json_option


@click.command("predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Scores or embeddings to write ({', '.join(SUFFIXES)}).",
)
@click.option(
    "--key",
    metavar="NAME",
    help="Array of an .npz or .mat; A,B joins two.",
)
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="Column that is no channel; may be repeated."
)
@click.option("--rate-hz", type=float, metavar="HZ", help="Sampling rate, where the data has none.")
@click.option("--label", metavar="NAME", help="Label column, never a channel.")
@engine_option
@force_option
@json_option
def command(
    bundle: Path,
    inputs: tuple[str, ...],
    out: Path,
    key: str | None,
    ignore: tuple[str, ...],
    rate_hz: float | None,
    label: str | None,
    engine: str,
    force: bool,
    json_file: Path | None,
) -> None:
    """Score recordings or embed images offline, by what the bundle is for.

    With an anomaly bundle the file has exactly one score for every row of the INPUTs, in their
    order; NaN where a row has no score yet. Each INPUT, and each segment of one, starts anew.
    Channels are matched by name; those of an array without names by position. An INPUT is a file
    (.csv, .tsv, .txt, .npy, .npz, .mat, .data) or a PRONOSTIA folder of snapshots (acc_00001.csv,
    …).

    With a navigation bundle the file has one embedding of unit length for every image, float32 [n,
    size]; an npz has the key `embedding`, a CSV the columns embedding_0, …. An INPUT is a .png or
    .jpg of any size, or a folder of them, which are taken in order of name.

    --json writes, for an anomaly bundle: bundle, name, engine, out, rows, threshold, and inputs, a
    list of {path, rows, segments, rate_hz, left_out, warnings, states, anomalous}; states counts
    rows as scored, filled, partial, warming_up and hole. For a navigation bundle: bundle, name,
    space_id, engine, out, rows, size, and inputs, a list of {path, width, height}.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--out {out} is no score or embedding file", f"suffixes: {', '.join(SUFFIXES)}"
        )
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "say --force to replace it, or another --out")
    model = read_bundle(bundle)
    if model.manifest.kind == "anomaly":
        from limpet.runtime.predictions import scores

        scored = scores.predict_scores(
            model, inputs, out, engine, key=key, ignore=ignore, rate_hz=rate_hz, label=label
        )
        for part in scored.inputs:
            for warning in part.warnings:
                click.echo(f"warning: {part.path}: {warning}", err=True)
        if not write_json(json_file, scored):
            click.echo(scores.describe(scored))
        return
    _check_navigation(model, {"--key": key, "--rate-hz": rate_hz, "--label": label,
                              "--ignore": ignore or None})  # fmt: skip
    from limpet.runtime.predictions import embeddings

    embedded = embeddings.predict_embeddings(model, inputs, out, engine)
    if not write_json(json_file, embedded):
        click.echo(embeddings.describe(embedded))


def _check_navigation(model: Bundle, of_recordings: dict[str, object]) -> None:
    """Refuses other kinds, and options that mean nothing for images."""
    kind = model.manifest.kind
    if kind != "navigation":
        raise DataError(
            f"{model.path} is a bundle of kind {kind!r}; this version predicts with anomaly and "
            "navigation bundles only",
            "serve it and ask over the wire: limpet serve CONFIG",
        )
    given = [name for name, value in of_recordings.items() if value is not None]
    if given:
        raise UsageError(
            f"{', '.join(given)}: an option for recordings, and {model.path} takes images",
            "leave it out",
        )
