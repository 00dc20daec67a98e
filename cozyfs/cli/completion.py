"""``cozyfs completion``: the script that teaches a shell to complete cozyfs commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cozyfs.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: cozyfs completion bash > ~/.local/share/bash-completion/completions/cozyfs
    zsh:  cozyfs completion zsh > a file of $fpath named _cozyfs
    fish: cozyfs completion fish > ~/.config/fish/completions/cozyfs.fish
    """
    from cozyfs.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}")
    click.echo(kind(cli, {}, "cozyfs", "_COZYFS_COMPLETE").source())
