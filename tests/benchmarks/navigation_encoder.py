"""What an image encoder learns from which objective: every arm at the same budget, on one data set.

    nice python -m tests.benchmarks.navigation_encoder --encoder DIR --validation DIR --test DIR \
        --runs DIR --reference RUN --json tests/benchmarks/results/navigation_encoder.json

The folders of pairs are those of `python -m limpet.training.navigation.pairs`, with the appearance
sets encoder (to learn from), policy (every choice is made on it) and test, in layouts that no two
of them share. Arms that are finished in --runs are kept, an interrupted one is resumed, and the
report is written anew after each.

The reference is a RUN of a longer training, which is measured beside them. Under attack, every
image is changed by at most 4/255 so that its embedding turns away from that of the clean image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from limpet.contracts.bundle import read_bundle
from limpet.contracts.images import normalize
from limpet.contracts.reports import format_table, write_json
from limpet.export.package import export_run
from limpet.runtime.engines import open_engine
from limpet.runtime.machine import describe_machine
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.navigation.evaluation import Embed, embed_frames, figures, raw_pixels
from limpet.training.navigation.frames import Float32, Frames, Uint8, open_frames
from limpet.training.navigation.hardening import attack
from limpet.training.navigation.train import train_navigation
from limpet.training.run import RECORD, RunFolder
from limpet.training.threads import one_thread

BUDGET = {"batch": 64, "steps": 200, "precision": "bf16"}
ARMS: dict[str, dict[str, Any]] = {
    "ranked": {"objective": "ranked"},
    "temperature by similarity": {"objective": "multi_positive", "temperature": "similarity"},
    "temperature by distance (paper)": {"objective": "multi_positive"},
    "SimCLR": {"objective": "simclr"},
    "fixed temperature": {"objective": "multi_positive", "temperature": "fixed"},
    "autoencoder": {"objective": "autoencoder"},
    "ranked, whole range": {"objective": "ranked", "near_m": 6.0},
    "ranked, hardened": {"objective": "ranked", "attack_steps": 2},
}
"""What differs from the defaults."""
ATTACKED = ("ranked", "ranked, hardened")
ATTACK_SIZE, ATTACK_STEPS = 4 / 255, 5
ATTACKED_POSES = 192
JUDGED = NavigationConfig()
"""Whose similarity all arms are judged by."""


def run_of(runs: Path, arm: str) -> Path:
    """Where an arm's RUN is."""
    return runs / "".join(c if c.isalnum() else "-" for c in arm).strip("-").lower()


def trained(runs: Path, data: Path, arm: str) -> Path:
    """An arm's finished RUN."""
    run, config = run_of(runs, arm), msgspec.convert({**BUDGET, **ARMS[arm]}, NavigationConfig)
    begun = (run / RECORD).exists()
    if not (begun and RunFolder(run).read().complete):
        train_navigation(data, run, config, resume=begun, command=__doc__.split("\n")[2].strip())
    return run


def embedder(encoder: Encoder) -> Embed:
    """Embeds by PyTorch."""

    @torch.no_grad()
    def embed(images: Uint8) -> Float32:
        return encoder(torch.from_numpy(normalize(images, encoder.config.image))).numpy()

    return embed


def attacked(encoder: Encoder) -> Embed:
    """Embeds images that were changed against this encoder."""
    how = encoder.config.image

    def embed(images: Uint8) -> Float32:
        clean = torch.from_numpy(normalize(images, how))
        with torch.no_grad():
            wanted = encoder(clean)
        # At the clean image the cosine is stationary, so the attack begins beside it.
        noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, clean.shape))
        begin = clean + noise.float() * ATTACK_SIZE / torch.tensor(how.scale)[:, None, None]

        def turned(changed: Tensor) -> Tensor:
            return -(encoder(changed) * wanted).sum()

        changed = attack(begin, turned, how, ATTACK_SIZE, ATTACK_STEPS)
        with torch.no_grad():
            return encoder(changed).numpy()

    return embed


def judge(embed: Embed, sets: dict[str, Frames]) -> dict[str, Any]:
    """Figures on each set."""
    found = {}
    for name, frames in sets.items():
        embedded, poses = embed_frames(embed, frames)
        found[name] = figures(embedded, poses, frames, JUDGED)
    return found


def spearman_under_attack(encoder: Encoder, frames: Frames) -> dict[str, float]:
    """The rank correlation on some poses, clean and under attack."""
    kept = np.linspace(0, len(frames) - 1, ATTACKED_POSES).astype(np.intp)
    few = Frames(
        name=frames.name,
        images=[frames.images[frames.layouts[p]][[p - np.searchsorted(
            frames.layouts, frames.layouts[p])], :2] for p in kept],
        lidar=frames.lidar[kept],
        goals=None,
        layouts=np.arange(len(kept)),
        sensor=frames.sensor,
        files=[],
    )  # fmt: skip
    return {
        name: figures(*embed_frames(make(encoder), few), few, JUDGED).spearman
        for name, make in (("clean", embedder), ("attacked", attacked))
    }


def edge(run: Path) -> dict[str, float]:
    """Size of a RUN's bundle, and time of one image in ONNX Runtime on one thread."""
    with TemporaryDirectory() as folder:
        export_run(run, Path(folder) / "encoder")
        bundle = read_bundle(Path(folder) / "encoder")
        size = sum(file.stat().st_size for file in bundle.path.iterdir())
        engine, (spec,) = open_engine(bundle), bundle.manifest.inputs
        image = {spec.name: bundle.golden().inputs[spec.name][:1]}
        times = []
        for _ in range(200):
            start = time.perf_counter()
            engine.run(image)
            times.append(time.perf_counter() - start)
    return {"bundle_bytes": size, "p50_ms": float(np.median(times)) * 1e3,
            "fastest_ms": min(times) * 1e3}  # fmt: skip


def rows(options: argparse.Namespace, sets: dict[str, Frames]) -> Iterator[dict[str, Any]]:
    """One row an arm, as it is finished."""
    controls: dict[str, Callable[[], Embed]] = {
        "random encoder": lambda: embedder(Encoder(NavigationConfig()).eval()),
        "raw pixels": lambda: raw_pixels,
    }
    for name, make in controls.items():
        yield {"arm": name, **judge(make(), sets)}
    reference = load_encoder(options.reference)
    yield {
        "arm": "reference",
        "config": msgspec.to_builtins(reference.config),
        **judge(embedder(reference), sets),
        "attack": spearman_under_attack(reference, sets["validation"]),
    }
    for arm in ARMS:
        encoder = load_encoder(trained(options.runs, options.encoder, arm))
        attack_row = {}
        if arm in ATTACKED:
            attack_row = {"attack": spearman_under_attack(encoder, sets["validation"])}
        yield {"arm": arm, "changes": ARMS[arm], **judge(embedder(encoder), sets), **attack_row}


def main() -> None:
    """Trains what is missing, measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("encoder", "validation", "test", "runs", "reference"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    sets = {
        name: open_frames(getattr(options, name), JUDGED.image) for name in ("validation", "test")
    }
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "budget": BUDGET,
        "sets": {name: {"poses": len(one), "views": one.views} for name, one in sets.items()},
        "edge": edge(options.reference),
        "rows": [],
    }
    with one_thread():
        for row in rows(options, sets):
            report["rows"].append(row)
            write_json(options.json_file, report)
    header = ["arm"]
    header += [f"{name} {what}" for name in sets for what in ("Spearman", "recall@1", "error (m)")]
    print(
        format_table(
            header,
            [
                [row["arm"], *(
                    f"{value:.3f}"
                    for name in sets
                    for value in (
                        row[name].spearman, row[name].recall_at_1, row[name].probe_error_m,
                    )
                )]
                for row in report["rows"]
            ],
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
