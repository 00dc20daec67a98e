"""``cozyfs log``: what happened to a file."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

import click

from cozyfs.cli import output
from cozyfs.cli.mounted import locate
from cozyfs.cli.parameters import state_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cozyfs.cli.mounted import Located

ANSWER_TIMEOUT_S = 30.0
"""Between two signs of life; while the journal is read there is one every half second."""


@click.command(short_help="List what happened to a file.")
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@state_option
def command(path: str, as_json: bool, limit: int | None, state_dir: Path | None) -> None:
    """List what happened to the file PATH in a mount, the oldest first, as far back as the journal
    in the store goes: when it was created, written, moved, changed, removed. Of a folder: what
    happened to itself and to each of its entries.

    PATH need not exist any more: what had this name is found. Each file that had it is followed
    from then on, under whatever name; the one that has it now, from its beginning.

    \b
      cozyfs log ~/alice/report.odt
      cozyfs log --limit 20 ~/alice/Documents
    """
    from cozyfs.config import state_dir as default_state_dir

    located = locate(path, default_state_dir(state_dir))
    events = read(located)
    if limit is not None:
        events = iter(deque(events, maxlen=limit))
    found = False
    for event in events:
        found = True
        click.echo(json.dumps(event, ensure_ascii=False) if as_json else line(event))
    if not found:
        click.echo("nothing happened to it in the time that the journal tells of", err=True)


def read(located: Located) -> Iterator[dict[str, Any]]:
    """The events, as they come. Raises CozyError."""
    for answer in located.client.stream("log", ANSWER_TIMEOUT_S, path=located.path):
        if "event" in answer:
            yield answer


def line(event: dict[str, Any]) -> str:
    """For people."""
    moment = event["time"][:23].replace("T", " ")
    place = event["journal"] + (f" {event['host']}" if event["host"] else "")
    return f"{moment}  {place}  {event['event']:<10}  {event['path']}{_details(event)}"


def _details(event: dict[str, Any]) -> str:
    match event["event"]:
        case "renamed" | "trashed" | "restored":
            return f"  from {event['from']}"
        case "content":
            return f"  {output.size(event['old_size'])} -> {output.size(event['size'])}"
        case "created" | "version" | "version removed" if "size" in event:
            return f"  {output.size(event['size'])}"
        case "attributes":
            pairs = [
                f"{name} {event[f'old_{name}']} -> {event[name]}"
                for name in ("mode", "owner")
                if name in event
            ]
            return "  " + ", ".join(pairs)
        case "xattr":
            return f"  {event['name']} {event['how']}"
    return ""
