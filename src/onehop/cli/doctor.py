"""`onehop doctor`: starts the engine for a moment and says what this machine protects, and what is missing.

It must change nothing: no environment is built, no state is kept.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onehop import __version__
from onehop.cli import engine, options
from onehop.config import Settings
from onehop.errors import OnehopError

if TYPE_CHECKING:
    from onehop.environments.model import Environment

ALL_ACTIVE, SOMETHING_WEAKER, CANNOT_RUN = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options.add_settings(
        parser,
        (
            "home",
            "environment",
            "isolation",
            "upstreams",
            "models",
            "strict",
            "allow_no_namespaces",
            "uid_base",
        ),
    )


def main(arguments: argparse.Namespace) -> int:
    settings = options.load(arguments)
    report = examine(settings)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(render(report)))
    if report["problem"]:
        return CANNOT_RUN
    return ALL_ACTIVE if all(row["state"] == "active" for row in report["protections"]) else SOMETHING_WEAKER


def examine(settings: Settings) -> dict[str, Any]:
    """Everything that doctor says, as data; `problem` is empty when onehop can run."""
    from onehop.environments.known import find

    report: dict[str, Any] = {
        "onehop": __version__,
        "problem": "",
        "protections": [],
        "machine": _machine(settings),
        "upstreams": [],
    }
    try:
        report["upstreams"] = _upstreams(settings)
        built = find(settings.environment, settings.home)
        report["environment"] = _described(settings.environment, built)
        if built is None:
            _try_namespaces(settings)
            report["problem"] = (
                f"the environment {settings.environment!r} is not built yet; run: {_build(settings)}"
            )
        else:
            report["protections"] = _start(settings, built)
    except OnehopError as error:
        report.setdefault("environment", _described(settings.environment, None))
        report["problem"] = str(error)
    return report


def _upstreams(settings: Settings) -> list[dict[str, Any]]:
    """The configured servers of models, without asking them (`onehop models check` does). Raises ConfigurationError."""
    if not settings.upstreams and not settings.models:
        return []
    from onehop.agent.upstreams import config

    servers = config.upstreams(settings)
    config.models(settings, servers)
    keys = config.read_keys(servers)
    return [
        {
            "name": one.name,
            "kind": one.kind,
            "url": one.url,
            "key": one.key_file or f"${one.key_env}" if one.name in keys else "",
        }
        for one in servers
    ]


def _build(settings: Settings) -> str:
    home = "" if settings.sources["home"] == "default" else f"ONEHOP_HOME={shlex.quote(str(settings.home))} "
    return f"{home}onehop run -c 1"


def _start(settings: Settings, built: Environment) -> list[dict[str, Any]]:
    """The rows of a supervisor and a gateway that were really started."""
    from onehop.cli.processes import Gateway
    from onehop.supervisor import spawn

    with engine.supervisor_log() as log:
        chosen = engine.supervisor_settings(settings, (built,), one_session=True)
        with spawn.start(chosen, stderr=log) as supervisor:
            rows: list[dict[str, Any]] = supervisor.report["protections"]
    gateway = Gateway.start(settings, listener=None, supervisor="")
    try:
        return [*rows, gateway.row()]
    finally:
        gateway.end(timeout_s=5)


def _try_namespaces(settings: Settings) -> None:
    """Without an environment nothing can be started; namespaces can be tried all the same."""
    from onehop.errors import WeakIsolationError
    from onehop.supervisor import spawn

    refused = spawn.namespaces_work()
    if refused and not settings.allow_no_namespaces:
        raise WeakIsolationError(spawn.namespace_advice(refused))


def _described(name: str, built: Environment | None) -> dict[str, Any]:
    if built is None:
        return {"name": name, "state": "missing"}
    return {
        "name": name,
        "state": "built",
        "path": str(built.path),
        "python": built.python_version,
        "packages": len(built.packages),
    }


def _machine(settings: Settings) -> dict[str, Any]:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    usage = shutil.disk_usage(place)
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "libseccomp": _libseccomp(),
        "user": os.geteuid(),
        "transparent_huge_pages": _chosen(Path(engine.PAGES)),
        "home": str(settings.home),
        "disk_free_bytes": usage.free,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


class _Version(ctypes.Structure):
    """struct scmp_version of seccomp.h."""

    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


def _libseccomp() -> str:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "missing (apt-get install libseccomp2)"
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    version = library.seccomp_version().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def _chosen(path: Path) -> str:
    """The value in brackets, as in `always [madvise] never`."""
    try:
        text = path.read_text()
    except OSError:
        return "not in this kernel"
    return text.partition("[")[2].partition("]")[0] or text.strip()


def render(report: dict[str, Any]) -> list[str]:
    """The report as lines for people."""
    machine, built = report["machine"], report["environment"]
    lines = [f"onehop {report['onehop']}", "", "protections"]
    for row in report["protections"]:
        lines.append(f"  {row['state']:<8} {row['name']:<15} {row['detail']}")
        if row["advice"]:
            lines.append(f"  {'':<24} to get it: {row['advice']}")
    if not report["protections"]:
        lines.append("  unknown until the engine starts")
    where = (
        f"{built['path']} (Python {built['python']}, {built['packages']} packages)"
        if "path" in built
        else built["state"]
    )
    lines += [
        "",
        "machine",
        f"  Linux {machine['kernel']} {machine['architecture']}, {machine['cpus']} CPUs, "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB memory, user id {machine['user']}",
        f"  Python {machine['python']}, libseccomp {machine['libseccomp']}, "
        f"transparent huge pages: {machine['transparent_huge_pages']}",
        f"  environment {built['name']}: {where}",
        f"  {machine['disk_free_bytes'] / 2**30:.1f} GiB free in {machine['home']}",
        "",
    ]
    if report["upstreams"]:
        lines.append("models (onehop models check asks them)")
        for one in report["upstreams"]:
            key = f"key from {one['key']}" if one["key"] else "no key"
            lines.append(f"  {one['name']:<15} {one['kind']:<10} {one['url']}, {key}")
        lines.append("")
    weaker = sum(row["state"] != "active" for row in report["protections"])
    if report["problem"]:
        lines.append(f"onehop cannot run here: {report['problem']}")
    elif weaker:
        lines.append(
            f"onehop runs here; {weaker} of {len(report['protections'])} protections are not at their best."
        )
    else:
        lines.append("onehop runs here, with every protection active.")
    return lines
