"""Help in words: no braces, types or ranges around the names of arguments."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

__all__ = ["PlainCommand", "PlainGroup"]

_WORDS: Final = {
    "--help": "show this text",
    "--install-completion": "install completion for this shell",
    "--show-completion": "print the completion for this shell",
}
"""Help of the options that Typer makes."""


class PlainCommand(TyperCommand):
    """A subcommand whose help names each argument as the user types it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the name in the first line."""
        pieces = ["[OPTIONS]"]
        for argument in self._arguments(ctx):
            many = " ..." if argument.nargs == -1 else ""
            pieces.append(f"{argument.metavar}{many}" if argument.required else f"[{argument.metavar}{many}]")
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        arguments = [(each.metavar, _with_default(each)) for each in self._arguments(ctx)]
        options = [(_spelled(each), _with_default(each)) for each in self.get_params(ctx) if _is_shown(each)]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _arguments(self, ctx: Any) -> list[Any]:
        return [each for each in self.get_params(ctx) if each.param_type_name == "argument"]


class PlainGroup(TyperGroup):
    """The command itself."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the name in the first line."""
        return ["COMMAND ..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options, in the words of the subcommands, and the subcommands."""
        with formatter.section("Options"):
            formatter.write_dl([(_spelled(each), _with_default(each)) for each in self.get_params(ctx)])
        self.format_commands(ctx, formatter)


def _is_shown(option: Any) -> bool:
    return option.param_type_name != "argument" and not getattr(option, "hidden", False)


def _spelled(option: Any) -> str:
    """Return an option as it is typed: ``-o, --output NEW``, ``--lineage, --no-lineage``."""
    names = ", ".join([*sorted(option.opts, key=len), *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar or 'TEXT'}"


def _with_default(parameter: Any) -> str:
    text = next((_WORDS[name] for name in parameter.opts if name in _WORDS), parameter.help or "")
    default = parameter.default
    if parameter.required:
        return text if parameter.param_type_name == "argument" else f"{text} (required)"
    if parameter.param_type_name == "argument" or default in (None, "", ()) or callable(default):
        return text
    if parameter.is_flag:
        return f"{text} (default)" if default else text
    return f"{text} (default {default:g})" if isinstance(default, float) else f"{text} (default {default})"
