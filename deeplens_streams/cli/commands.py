"""Our commands by name, imported when they are called."""

from importlib import import_module

import click

#: Each command's module; the module has a function of the command's name.
OUR_COMMANDS = {
    "up": "deeplens_streams.cli.up",
    "doctor": "deeplens_streams.cli.doctor",
    "upload": "deeplens_streams.cli.upload",
    "status": "deeplens_streams.cli.status",
    "search": "deeplens_streams.cli.search",
    "delete": "deeplens_streams.cli.delete",
    "dead-letters": "deeplens_streams.cli.dead_letters",
    "audit": "deeplens_streams.cli.audit",
    "trash": "deeplens_streams.cli.trash",
    "backup": "deeplens_streams.cli.backup",
    "restore": "deeplens_streams.cli.restore",
    "tenants": "deeplens_streams.cli.tenants",
    "topics": "deeplens_streams.cli.topics",
    "extractor": "deeplens_streams.cli.extractor",
}


def load_command(name: str) -> click.Command:
    command: click.Command = getattr(import_module(OUR_COMMANDS[name]), name.replace("-", "_"))
    return command


class CommandGroup(click.Group):
    """Our commands and Faust's in two sections of the help; ours in pipeline order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(OUR_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in OUR_COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from faust.cli.faust import cli  # noqa: PLC0415 - only the help needs it

        ours = {name: load_command(name) for name in OUR_COMMANDS}
        faust = {name: cli.commands[name] for name in sorted(cli.commands) if name not in ours}
        for title, commands in (("Commands", ours), ("Faust's own commands", faust)):
            with formatter.section(title):
                formatter.write_dl(
                    [(name, command.get_short_help_str(70)) for name, command in commands.items()]
                )
