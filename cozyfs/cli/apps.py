"""``cozyfs apps``: the webapps of instances (`cozyfs.cli.app_commands`)."""

from cozyfs.cli.app_commands import group

command = group("apps", "app")
