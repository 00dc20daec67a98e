"""``cozyfs konnectors``: the konnectors of instances (`cozyfs.cli.app_commands`)."""

from cozyfs.cli.app_commands import group

command = group("konnectors", "konnector")
