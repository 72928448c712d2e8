"""`limpet predict`: offline scores of recordings, embeddings of images, grasps of depth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.reports import write_json
from limpet.contracts.scores_file import SUFFIXES
from limpet.contracts.whole_files import check_folder
from limpet.runtime.commands import engine_option, force_option, json_option


@click.command("predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Scores, embeddings or grasps to write ({', '.join(SUFFIXES)}).",
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
@click.option(
    "--camera",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Of depth images: JSON with intrinsics and poses, or GraspNet's meta.mat.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PNG",
    help="Draw cloud and grasps.",
)
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
    camera: Path | None,
    picture: Path | None,
    engine: str,
    force: bool,
    json_file: Path | None,
) -> None:
    """Score recordings, embed images or find grasps offline, by what the bundle is for.

    With an anomaly bundle the file has exactly one score for every row of the INPUTs, in their
    order; NaN where a row has no score yet. Each INPUT, and each segment of one, starts anew.
    Channels are matched by name; those of an array without names by position. An INPUT is a file
    (.csv, .tsv, .txt, .npy, .npz, .mat, .data) or a PRONOSTIA folder of snapshots (acc_00001.csv,
    …).

    With a navigation bundle the file has one embedding of unit length for every image, float32 [n,
    size]; an npz has the key `embedding`, a CSV the columns embedding_0, …. An INPUT is a .png or
    .jpg of any size, or a folder of them, which are taken in order of name. Pixels are taken as
    they are stored; one that shows nothing has its row, and a warning.

    With a grasp bundle the file has one row of GraspNet's 17 numbers for each grasp, score
    descending, in the reference camera's frame: score, width, height, depth, rotation (x axis:
    approach), translation, object id -1. INPUT is one depth image or two, the reference view first:
    .png of 16 bits, .npy, or .npz with depth and intrinsics_matrix; .npy [n, 3] is a cloud. Two
    need --camera with pose_aux_in_ref. An npz also has poses_camera, embedding, seed_embedding,
    counts and, with pose_camera_in_base, poses_base; where the second view was registered with the
    first, correction.

    --json writes, for an anomaly bundle: bundle, name, engine, out, rows, threshold, and inputs, a
    list of {path, rows, segments, rate_hz, left_out, warnings, states, anomalous}; states counts
    rows as scored, filled, partial, warming_up and hole. For a navigation bundle: bundle, name,
    space_id, engine, out, rows, size, and inputs, a list of {path, width, height, warnings}. For a
    grasp bundle: bundle, name, space_id, engine, out, rows, hypotheses, free, views, nothing (why
    there is no grasp, else empty), prepare_ms, model_ms, decode_ms, picture, and inputs, a list of
    {path, shape}.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--out {out} is no file of scores, embeddings or grasps",
            f"suffixes: {', '.join(SUFFIXES)}",
        )
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "say --force to replace it, or another --out")
    check_folder(out)
    if picture is not None:
        check_folder(picture)
    _check_apart(inputs, {"--out": out, "--json": json_file, "--picture": picture})
    model = read_bundle(bundle)
    _check_options(
        model,
        {"--key": key, "--rate-hz": rate_hz, "--label": label, "--ignore": ignore or None},
        {"--camera": camera, "--picture": picture},
    )
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
    if model.manifest.kind == "grasp":
        from limpet.runtime.predictions import grasps

        found = grasps.predict_grasps(model, inputs, out, engine, camera=camera, picture=picture)
        if not write_json(json_file, found):
            click.echo(grasps.describe(found))
        return
    from limpet.runtime.predictions import embeddings

    embedded = embeddings.predict_embeddings(model, inputs, out, engine)
    for image in embedded.inputs:
        for warning in image.warnings:
            click.echo(f"warning: {image.path}: {warning}", err=True)
    if not write_json(json_file, embedded):
        click.echo(embeddings.describe(embedded))


def _check_apart(inputs: Sequence[str], written: dict[str, Path | None]) -> None:
    """Refuses to write one file twice, and to write over an INPUT."""
    taken = {os.path.realpath(path): "an INPUT" for path in inputs}
    for option, path in written.items():
        if path is None or str(path) == "-":
            continue
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise UsageError(
                f"{option} {path} is {other}, which it would replace", f"give another {option}"
            )


def _check_options(
    model: Bundle, of_recordings: dict[str, object], of_depth: dict[str, object]
) -> None:
    """Refuses kinds that cannot be predicted with, and options that mean nothing for this one."""
    kind = model.manifest.kind
    takes = {"anomaly": "recordings", "navigation": "images", "grasp": "depth images"}
    if kind not in takes:
        raise DataError(
            f"{model.path} is a bundle of kind {kind!r}; this version predicts with "
            f"{', '.join(list(takes)[:-1])} and {list(takes)[-1]} bundles only",
            "serve it and ask over the wire: limpet serve CONFIG",
        )
    for options, meant in ((of_recordings, "recordings"), (of_depth, "depth images")):
        given = [name for name, value in options.items() if value is not None]
        if given and takes[kind] != meant:
            raise UsageError(
                f"{', '.join(given)}: an option for {meant}, and {model.path} takes {takes[kind]}",
                "leave it out",
            )
