"""Where pip would look for packages, said to uv.

People behind a mirror or a company's certificate have configured pip, and uv does not read pip's files.
This module reads them (and the PIP_* variables) and answers with uv's variables and flags. It must never
pass on a local directory that is missing: pip shrugs at one, uv refuses to start.

Files, sections and their order: pip's own documentation, "Configuration".
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_INDEX_VARIABLES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS")
_PROXY_VARIABLES = ("ALL_PROXY", "HTTPS_PROXY", "https_proxy", "all_proxy")


def read_pip_settings(
    environ: Mapping[str, str], *, prefix: Path, etc: Path = Path("/etc")
) -> dict[str, str]:
    """What `pip install` would use, by option name ("index-url"), from files and PIP_* variables.

    Args:
        environ: the process's environment; HOME and XDG_* in it say where the user's files are.
        prefix: the running interpreter's `sys.prefix`, which has a file of its own.
        etc: the system's configuration directory.
    """
    settings: dict[str, str] = {}
    for path in _files(environ, prefix, etc):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself says what is wrong with it, the next time it runs
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    for variable, value in environ.items():
        if variable.startswith("PIP_") and value:
            settings[variable[4:].lower().replace("_", "-")] = value
    return settings


def _files(environ: Mapping[str, str], prefix: Path, etc: Path) -> Iterator[Path]:
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    home = Path(environ.get("HOME") or "~").expanduser()
    for directory in reversed((environ.get("XDG_CONFIG_DIRS") or str(etc / "xdg")).split(":")):
        yield Path(directory) / "pip" / "pip.conf"
    yield etc / "pip.conf"
    if not (chosen and Path(chosen).exists()):  # pip drops the user's files then
        yield home / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield prefix / "pip.conf"
    if chosen:
        yield Path(chosen)


@dataclass(frozen=True)
class UvSettings:
    """How uv is told: by variables, and by flags of `uv pip` where it knows no variable."""

    variables: dict[str, str]
    flags: tuple[str, ...] = ()


def translate(settings: Mapping[str, str], environ: Mapping[str, str]) -> UvSettings:
    """What makes uv look where pip would; nothing that the user has set for uv himself.

    Args:
        settings: as `read_pip_settings` gives them.
        environ: the process's environment, which wins.
    """
    variables: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    if not any(name in environ for name in _INDEX_VARIABLES):
        if index := settings.get("index-url"):
            variables["UV_DEFAULT_INDEX"] = index
        if extra := [url for url in settings.get("extra-index-url", "").split() if _reachable(url)]:
            variables["UV_INDEX"] = " ".join(extra)
            # pip takes the best version wherever it lies; uv would stop at the first index that knows the
            # name. The hashes of the lock keep this from being a way in.
            variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
            flags = ("--no-index",)
    if links := [place for place in settings.get("find-links", "").split() if _reachable(place)]:
        variables["UV_FIND_LINKS"] = ",".join(links)
    if hosts := settings.get("trusted-host", "").split():
        variables["UV_INSECURE_HOST"] = " ".join(hosts)
    if (cert := settings.get("cert")) and not any(name in environ for name in _CERTIFICATE_VARIABLES):
        path = Path(cert).expanduser()
        if path.exists():
            variables["SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE"] = str(path)
    if (client := settings.get("client-cert")) and Path(client).expanduser().exists():
        variables["SSL_CLIENT_CERT"] = str(Path(client).expanduser())
    if (proxy := settings.get("proxy")) and not any(name in environ for name in _PROXY_VARIABLES):
        variables["ALL_PROXY"] = proxy
    timeout_s = settings.get("timeout") or settings.get("default-timeout", "")
    if timeout_s.isdigit():
        variables["UV_HTTP_TIMEOUT"] = timeout_s
    return UvSettings({name: value for name, value in variables.items() if name not in environ}, flags)


def _reachable(place: str) -> bool:
    """False for a local path or file: URL that does not exist; a remote one is uv's to try."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).exists()
    return bool(parts.scheme) or Path(place).expanduser().exists()


def for_this_process(*, main_index_only: bool = False) -> UvSettings:
    """The settings for the interpreter and the user that run this.

    Args:
        main_index_only: leave out extra indexes and directories of files: they often have a package's
            files for one machine only.
    """
    settings = read_pip_settings(os.environ, prefix=Path(sys.prefix))
    if main_index_only:
        settings.pop("extra-index-url", None)
        settings.pop("find-links", None)
    return translate(settings, os.environ)
