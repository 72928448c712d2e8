"""`limpet serve`: runs a server until it is told to stop."""

from __future__ import annotations

import gc
import logging
import os
import signal
from pathlib import Path

import click

from limpet.runtime.config import load_config
from limpet.runtime.placement import place

GC_THRESHOLD = 50_000
"""Objects, more made than freed, after which Python looks for cycles."""


@click.command(name="serve")
@click.argument("config", type=click.Path(path_type=Path))
def command(config: Path) -> None:
    """Serve the models of a configuration file to robot and sensor nodes.

    Prints `ready ENDPOINT…` once it listens. SIGTERM and Ctrl-C finish what was accepted, then
    stop; a second one stops at once.
    """
    settings = load_config(config)
    place(settings.server.cores, settings.server.realtime_priority)

    from limpet.runtime.server import Server

    server = Server(settings)

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # What is there now stays, and messages leave no cycles behind: looking for some after every few
    # hundred objects, as is the default, took a twentieth of the time under load. The server looks
    # when it is idle; only one that never is comes to this threshold.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    click.echo(f"ready {' '.join(server.listening)}")
    finished = server.run()
    click.echo("stopped")
    if not finished:
        logging.shutdown()
        os._exit(0)  # at once: see `Server.run`
