"""Magics that need an answer of our own."""
# runs inside the wall: standard library only

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from onehop.kernel import figures

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

NO_INSTALL = (
    "Packages cannot be installed from inside a sandbox: it has no network.\n"
    "Installed already: see `!pip list` or importlib.metadata.distributions().\n"
    "For others, ask the operator for an environment that has them (`environment` in the request)."
)


def register(shell: Shell) -> None:
    """Replaces the magics that would need the network or a terminal."""

    def refuse_install(line: str) -> None:
        answer_command("pip " + line)

    def refuse_editor(line: str) -> None:
        print("There is no editor and no debugger's prompt here: nobody could answer them.")

    def matplotlib_magic(line: str) -> None:
        figures.register(shell)

    for name in ("pip", "conda", "mamba", "micromamba", "uv"):
        shell.register_magic_function(refuse_install, "line", name)
    for name in ("edit", "ed", "debug"):
        shell.register_magic_function(refuse_editor, "line", name)
    shell.register_magic_function(matplotlib_magic, "line", "matplotlib")


_INSTALLER = re.compile(
    r"\s*(?:sudo\s+)?(?:\S*python[\d.]*\s+-m\s+)?(?:uv\s+)?(?:pip[\d.]*|conda|mamba)\s+(?:-\S+\s+)*(\w+)"
)


def answer_command(command: str) -> bool:
    """Answers a package manager's command, which models write as `!pip install …`; False for any other."""
    found = _INSTALLER.match(command)
    if found is None:
        return False
    if found[1] in ("list", "freeze"):
        _list_packages()
    else:
        print(NO_INSTALL)
    return True


def _list_packages() -> None:
    from importlib.metadata import distributions

    for name, version in sorted(
        {(d.name, d.version) for d in distributions()}, key=lambda item: item[0].lower()
    ):
        print(f"{name} {version}")
