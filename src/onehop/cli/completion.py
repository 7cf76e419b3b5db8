"""`onehop completion`: prints a shell's completion script, made from the parsers of all commands.

The script knows commands, actions and flags; everything else is completed as a file name. It never
starts onehop, so that Tab stays quick.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, field

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.epilog = (
        "Put it where your shell looks: `onehop completion bash > ~/.local/share/bash-completion/completions/onehop`; "
        "for zsh into a file `_onehop` in a folder of fpath; for fish into ~/.config/fish/completions/onehop.fish."
    )


def main(arguments: argparse.Namespace) -> int:
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](nodes()))
    return 0


@dataclass
class Node:
    """A command or one of its actions: what may follow it. `path` is `env add`, or empty at the top."""

    path: str
    words: dict[str, str] = field(default_factory=dict)
    """Commands and actions, with what they do."""
    flags: dict[str, str] = field(default_factory=dict)
    """As written, with what they are for."""
    takes_value: set[str] = field(default_factory=set)
    """Of the flags."""


def nodes() -> list[Node]:
    from onehop.cli.main import COMMANDS, parser

    top = Node("", dict(COMMANDS) | {"help": "what a command does"}, {"--help": "", "--version": ""})
    found = [top, Node("help", dict(COMMANDS))]
    for name in COMMANDS:
        commands = _actions(parser(name))
        _walk(commands[name], name, found)
    return found


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _walk(parser: argparse.ArgumentParser, path: str, found: list[Node]) -> None:
    node = Node(path)
    found.append(node)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help or "" for one in action._choices_actions}
            for name, sub in action.choices.items():
                node.words[name] = helps.get(name, "")
                _walk(sub, f"{path} {name}", found)
        elif action.option_strings:
            for flag in action.option_strings:
                node.flags[flag] = (action.help or "").replace("%%", "%")
                if action.nargs != 0:
                    node.takes_value.add(flag)
        elif action.choices:
            node.words |= {str(choice): "" for choice in action.choices}


def _cases(found: list[Node]) -> str:
    """`(path) words;;` for each, as a shell's case has it."""
    return "\n".join(
        f"    ({shlex.quote(node.path)}) list={shlex.quote(' '.join([*node.words, *node.flags]))} ;;"
        for node in found
    )


def _known(found: list[Node]) -> str:
    """The paths that a word can lead on to."""
    return "|".join(shlex.quote(node.path) for node in found if node.path)


def bash(found: list[Node]) -> str:
    return f"""\
# bash completion of onehop, made by `onehop completion bash`
_onehop() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} at="" word list="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{at:+$at }}${{COMP_WORDS[i]}}"
    case "$word" in {_known(found)}) at=$word ;; esac
  done
  case "$at" in
{_cases(found)}
  esac
  COMPREPLY=($(compgen -W "$list" -- "$cur"))
}}
complete -o default -o bashdefault -F _onehop onehop"""


def zsh(found: list[Node]) -> str:
    return f"""\
#compdef onehop
# zsh completion of onehop, made by `onehop completion zsh`
_onehop() {{
  local at="" word list="" i
  for ((i = 2; i < CURRENT; i++)); do
    word="${{at:+$at }}${{words[i]}}"
    case "$word" in ({_known(found)}) at=$word ;; esac
  done
  case "$at" in
{_cases(found)}
  esac
  compadd -- ${{=list}}
  _files
}}
compdef _onehop onehop"""


def fish(found: list[Node]) -> str:
    lines = ["# fish completion of onehop, made by `onehop completion fish`"]
    for node in found:
        words = node.path.split()
        conditions = [f"__fish_seen_subcommand_from {word}" for word in words]
        if not words:
            conditions = ["__fish_use_subcommand"]
        elif node.words:
            conditions.append(f"not __fish_seen_subcommand_from {' '.join(node.words)}")
        when = shlex.quote("; and ".join(conditions))
        for word, text in node.words.items():
            lines.append(f"complete -c onehop -f -n {when} -a {shlex.quote(word)} -d {shlex.quote(text)}")
        for flag, text in node.flags.items():
            kind = "-l" if flag.startswith("--") else "-s"
            value = " -r" if flag in node.takes_value else ""
            short = shlex.quote(text.split(" (default")[0])
            lines.append(f"complete -c onehop -n {when} {kind} {flag.lstrip('-')}{value} -d {short}")
    return "\n".join(lines)
