"""Magics that need an answer of our own, and the small cells a kernel is warmed up with."""
# runs inside the wall: standard library only

from __future__ import annotations

from typing import TYPE_CHECKING

from onehop.kernel import figures

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

WARM_UP: tuple[str, ...] = ("x = [n * n for n in range(10)]\nprint(end='')\nsum(x)",)

NO_INSTALL = (
    "Packages cannot be installed from inside a sandbox: it has no network.\n"
    "Installed already: see `!pip list` or importlib.metadata.distributions().\n"
    "For others, ask the operator for an environment that has them (`environment` in the request)."
)


def register(shell: Shell) -> None:
    """Replaces the magics that would need the network or a terminal."""

    def refuse_install(line: str) -> None:
        if line.split()[:1] == ["list"]:
            _list_packages()
            return
        print(NO_INSTALL)

    def matplotlib_magic(line: str) -> None:
        figures.register()

    for name in ("pip", "conda", "mamba", "micromamba", "uv"):
        shell.register_magic_function(refuse_install, "line", name)
    shell.register_magic_function(matplotlib_magic, "line", "matplotlib")
    # `!pip install x` is what models write more often than %pip.
    shell.input_transformers_cleanup.append(_pip_through_shell)


def _pip_through_shell(lines: list[str]) -> list[str]:
    return ["%pip " + line[5:] if line.startswith(("!pip ", "!pip3 ")) and line[:5] == "!pip "
            else "%pip " + line[6:] if line.startswith("!pip3 ") else line for line in lines]


def _list_packages() -> None:
    from importlib.metadata import distributions

    for name, version in sorted({(d.name, d.version) for d in distributions()}, key=lambda item: item[0].lower()):
        print(f"{name} {version}")
