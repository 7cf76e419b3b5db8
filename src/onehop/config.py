"""Every setting of onehop, once: name, kind, default, bounds and help. Importing this must stay cheap.

A value comes from the command line, the environment, a TOML file or the default, in this order. From a
setting's name follow its flag (`idle_timeout_s` → `--idle-timeout-s`), its variable
(`ONEHOP_IDLE_TIMEOUT_S`) and its TOML key (`idle_timeout_s`). Nothing else in onehop reads the
environment or a configuration file for a setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from onehop.errors import ConfigurationError

MIB = 1024 * 1024
CONFIG_FILE = "config.toml"
LOG_LEVELS = ("debug", "info", "warning", "error")
UID_RANGE = 65_536
"""Host uids reserved from `uid_base` on, one per sandbox (as root only)."""
MASK = "***"
NO_SETTINGS = frozenset(
    {
        "ONEHOP_CONFIG",
        "ONEHOP_URL",
        "ONEHOP_API_KEY",
        "ONEHOP_CRASH_AT",
        "ONEHOP_READY_FD",
        "ONEHOP_GATEWAY_SPEC",
        "ONEHOP_SUPERVISOR_SPEC",
        "ONEHOP_LAUNCHER_SPEC",
        "ONEHOP_WORKER_SPEC",
    }
)
"""Variables of onehop that are no settings: of clients, of tests, and between its own processes."""


class Tables(str):
    """JSON of the tables of one setting: name → members. As text it can be passed on in a variable."""

    __slots__ = ()


def _setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=metadata)


def _limit(default: float, help: str, *, minimum: float = 1, maximum: float | None = None) -> Any:
    return _setting(default, help, minimum=minimum, maximum=maximum)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings with their values; make it with `load`. `sources` has where each value came from."""

    home: Path = _setting(  # noqa: RUF009 - it returns a field
        Path("~/.local/share/onehop"), "folder of the state, the environments and config.toml"
    )
    host: str = _setting(
        "127.0.0.1", "address to listen on; one that is no loopback address needs a key first"
    )
    port: int = _limit(8000, "port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    allowed_hosts: tuple[str, ...] = _setting(
        (), "host names that requests may name besides the loopback ones"
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), "web origins that may call the API, as https://name[:port]"
    )
    database_url: str = _setting("", "database; empty: SQLite in <home>/state/onehop.db")
    environment: str = _setting("default", "environment of requests that name none")
    isolation: str = _setting("process", "how strong the wall is", choices=("process",))
    tools: Tables = _setting(  # noqa: RUF009 - as above
        Tables(),
        "sources of tools: a .py module, an OpenAPI document, a URL or the command of an MCP server, each "
        "[NAME=]TARGET; as [tools.NAME] in the file",
    )
    upstreams: Tables = _setting(  # noqa: RUF009 - as above
        Tables(),
        "servers of models, each [NAME=][KIND+]URL, KIND being chat, responses, messages or gemini; as "
        "[upstreams.NAME] in the file",
    )
    models: Tables = _setting(  # noqa: RUF009 - as above
        Tables(),
        "models under names of your own, each NAME=UPSTREAM:MODEL, further ones to fall back on after +; as "
        "[models.NAME] in the file",
    )
    strict: bool = _setting(False, "refuse to start with any protection weaker than the best")
    allow_no_namespaces: bool = _setting(
        False, "where namespaces are refused, run on seccomp, Landlock and rlimits alone"
    )
    uid_base: int = _limit(
        1_900_000_000,
        "first of 65536 host uids for sandboxes, and of 64 more for tools (as root only)",
        minimum=65_536,
        maximum=2**32 - 2**17,
    )
    log_level: str = _setting("info", "least important messages that are logged", choices=LOG_LEVELS)
    log_format: str = _setting("text", "form of the gateway's log on stderr", choices=("text", "json"))
    access_log: bool = _setting(False, "log every request, as log_level debug does")

    timeout_s: float = _limit(60.0, "wall seconds of an execution, unless it asks for others", minimum=0.01)
    max_timeout_s: float = _limit(3600.0, "most wall seconds an execution may ask for", minimum=0.01)
    grace_s: float = _limit(2.0, "seconds between SIGINT at the deadline and SIGKILL in a session", minimum=0)
    memory_mb: int = _limit(1024, "memory of a sandbox in MiB, unless it asks for other", minimum=64)
    max_memory_mb: int = _limit(16384, "most memory in MiB a sandbox may ask for", minimum=64)
    processes: int = _limit(64, "processes and threads of a sandbox, unless it asks for others", minimum=4)
    max_processes: int = _limit(512, "most processes and threads a sandbox may ask for", minimum=4)
    workspace_mb: int = _limit(256, "quota of a workspace in MiB, unless it asks for another")
    max_workspace_mb: int = _limit(4096, "largest quota of a workspace in MiB that may be asked for")
    workspace_inodes: int = _limit(16384, "most files and folders in a workspace", minimum=16)
    open_files: int = _limit(256, "open files of each process in a sandbox", minimum=32, maximum=65536)
    output_bytes: int = _limit(MIB, "stdout and stderr returned; the rest is spilled to a workspace file")
    max_output_bytes: int = _limit(16 * MIB, "most output_bytes that may be asked for")
    results_bytes: int = _limit(32 * MIB, "most bytes of displayed results of an execution")
    code_bytes: int = _limit(MIB, "longest code of an execution")
    stdin_bytes: int = _limit(MIB, "longest stdin of an execution")
    env_bytes: int = _limit(64 * 1024, "names and values of an execution's env together")
    metadata_bytes: int = _limit(16 * 1024, "names and values of a session's metadata together")
    body_bytes: int = _limit(64 * MIB, "largest JSON body of a request, files included")
    return_files_bytes: int = _limit(16 * MIB, "most bytes of file contents inside an answer", minimum=0)

    max_sessions: int = _limit(1000, "most sessions at once")
    max_concurrent: int = _limit(64, "most one-shot executions at once")
    max_contexts: int = _limit(8, "most contexts at once in one session")
    max_commands: int = _limit(16, "most commands at once in one session")
    max_transfers: int = _limit(4, "most file transfers at once in one session")
    idle_timeout_s: float = _limit(1800.0, "a session ends after this long without a request")
    max_age_s: float = _limit(86400.0, "a session ends this long after its creation")
    batch_items: int = _limit(100, "most items in one batch", maximum=1000)
    batch_parallel: int = _limit(8, "most items of one batch that run at once", maximum=64)
    max_tool_calls: int = _limit(10_000, "most calls of tools in one execution", maximum=100_000)
    max_parallel_calls: int = _limit(
        100, "most calls of one execution that run at once; more wait", maximum=4096
    )
    tool_bytes_mb: int = _limit(64, "most MiB of arguments, and of results, of one execution's calls")
    tool_timeout_s: float = _limit(60.0, "seconds a call of a registered tool may take", minimum=0.01)
    tool_results_timeout_s: float = _limit(
        300.0, "seconds a suspended execution waits for results of its client's tools", minimum=0.01
    )
    max_tool_results_timeout_s: float = _limit(86400.0, "most seconds it may ask for", minimum=0.01)
    pool_min: int = _limit(2, "fewest ready sandboxes kept per environment", minimum=0)
    pool_max: int = _limit(32, "most ready sandboxes kept per environment", minimum=0)
    lambda_workers: int = _limit(
        2, "Monty processes of the lambda lane; 0: lambdas run in sandboxes only", minimum=0, maximum=64
    )
    lambda_slice_s: float = _limit(
        0.25,
        "wall seconds of a lambda in Monty; what takes longer runs in a sandbox",
        minimum=0.01,
        maximum=60,
    )
    lambda_memory_mb: int = _limit(
        64, "MiB that a lambda may use in Monty; what needs more runs in a sandbox", minimum=1, maximum=512
    )
    client_patience_s: float = _limit(
        30.0,
        "a connection that is silent amid a request for this long is closed; one that takes nothing of its "
        "answer, after ten times that",
        minimum=0.1,
    )
    watchdog_s: float = _limit(
        15.0, "a gateway whose loop has not turned for this long is started again; 0: never", minimum=0
    )
    price_per_execution: float = _limit(0.0, "what an execution costs, in `currency`", minimum=0)
    price_per_cpu_hour: float = _limit(0.0, "what an hour of CPU time costs", minimum=0)
    price_per_gb_hour: float = _limit(0.0, "what a GiB of memory costs, used for an hour", minimum=0)
    currency: str = _setting("", "currency of the prices, as EUR; empty: usage has no cost")
    retention_days: float = _limit(7.0, "results and ended sessions are kept this long", minimum=0.001)
    retention_mb: int = _limit(2048, "most MiB of stored results; the oldest go first")
    stored_events_bytes: int = _limit(
        4 * MIB, "events stored per execution; what is over it is left out", minimum=0
    )

    chat_code: bool = _setting(
        True, "Chat Completions requests get the Python tool unless they say otherwise"
    )
    loop_turns: int = _limit(32, "most times that one request may ask a model")
    loop_wall_s: float = _limit(900.0, "wall seconds of one request to the model loop", minimum=0.1)
    loop_tokens: int = _limit(2_000_000, "most tokens that one request may use, all turns together")
    loop_tool_calls: int = _limit(100, "most calls of code, commands and edits that one request may make")
    loop_cost: float = _limit(
        0.0, "most that one request may cost, where the model has prices; 0: no limit", minimum=0
    )
    loop_memory_hours: float = _limit(
        24.0 * 30, "hours that responses and turns are kept for a later request", minimum=0.01
    )
    upload_mb: int = _limit(512, "largest file in MiB that a client may upload for later")
    uploads_mb: int = _limit(4096, "most MiB of uploaded files of one owner")

    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def state(self) -> Path:
        """Folder of the database."""
        return self.home / "state"

    def environ(self) -> dict[str, str]:
        """The settings as environment variables, for a process that shall have the same ones."""
        return {setting.variable: setting.render(getattr(self, setting.name)) for setting in SETTINGS}


@dataclass(frozen=True)
class Setting:
    """What is known about one setting. `kind` is the type of its value."""

    name: str
    kind: type
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "ONEHOP_" + self.name.upper()

    def render(self, value: Any) -> str:
        """`value` as text that `parse` reads back."""
        if self.kind is tuple:
            return ",".join(value)
        if self.kind is bool:
            return "true" if value else "false"
        return str(value)

    def masked(self, value: Any) -> str:
        """As `render`, for people's eyes and logs: no password and no key in it."""
        text = _without_headers(value) if self.kind is Tables else self.render(value)
        if self.name.rpartition("_")[2] in ("key", "token", "secret", "password"):
            return MASK if text else ""
        return re.sub(
            r"(://[^/@\s]*?:)\S*(?=@)|([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*",
            rf"\1\2{MASK}",
            text,
        )

    def parse(self, raw: Any, source: str) -> Any:
        """The value for `raw`, text or TOML. Raises ConfigurationError naming setting and `source`."""
        try:
            value = self._convert(raw)
            self._check(value)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{self.name} (from {source}): {error}") from None
        return value

    def _convert(self, raw: Any) -> Any:
        if self.kind is Tables:
            return _tables(raw, self.name)
        if self.kind is bool:
            return _boolean(raw)
        if isinstance(raw, bool):
            raise TypeError(f"expected {_NAMES[self.kind]}, got {raw!r}")
        if self.kind is tuple:
            parts = raw.split(",") if isinstance(raw, str) else raw
            if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
                raise TypeError(f"expected {_NAMES[tuple]}, got {raw!r}")
            return tuple(part.strip() for part in parts if part.strip())
        if self.kind is Path:
            if not isinstance(raw, str | Path) or not str(raw):
                raise TypeError(f"expected {_NAMES[Path]}, got {raw!r}")
            return _expand(raw)
        if self.kind is str and not isinstance(raw, str):
            raise TypeError(f"expected {_NAMES[str]}, got {raw!r}")
        if self.kind is int and isinstance(raw, float):
            raise TypeError(f"expected {_NAMES[int]}, got {raw!r}")
        try:
            return self.kind(raw)
        except (ValueError, TypeError):
            raise ValueError(f"expected {_NAMES[self.kind]}, got {raw!r}") from None

    def _check(self, value: Any) -> None:
        if self.choices and value not in self.choices:
            raise ValueError(f"expected one of {', '.join(self.choices)}, got {value!r}")
        if self.kind in (int, float):
            # `not (a <= b)` refuses NaN as well.
            if self.minimum is not None and not self.minimum <= value:
                raise ValueError(f"must be at least {self.minimum:g}, got {value}")
            if value == float("inf") or (self.maximum is not None and value > self.maximum):
                raise ValueError(f"must be at most {self.maximum or 'a finite number'}, got {value}")


_NAMES: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of texts",
    Path: "a path",
    bool: "true or false",
    Tables: "tables",
}


def _settings() -> Iterator[Setting]:
    for item in fields(Settings):
        if item.default is not MISSING:
            kind = Path if isinstance(item.default, Path) else type(item.default)
            yield Setting(item.name, kind, item.default, **item.metadata)


SETTINGS: tuple[Setting, ...] = tuple(_settings())
"""All settings, in the order of the class above."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}

_PAIRS = (
    ("timeout_s", "max_timeout_s"),
    ("memory_mb", "max_memory_mb"),
    ("processes", "max_processes"),
    ("workspace_mb", "max_workspace_mb"),
    ("output_bytes", "max_output_bytes"),
    ("tool_results_timeout_s", "max_tool_results_timeout_s"),
    ("pool_min", "pool_max"),
)


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    Args:
        flags: values from the command line by setting name, None where a flag was not given; `config`
            names another TOML file than <home>/config.toml.
        environ: environment variables (default: those of this process); ONEHOP_CONFIG is like `config`.

    Raises:
        ConfigurationError: naming the setting and where its value came from.
    """
    flags = flags or {}
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def take(name: str, raw: Any, source: str) -> None:
        values[name] = _BY_NAME[name].parse(raw, source)
        sources[name] = source

    def outside(name: str) -> bool:
        setting = _BY_NAME[name]
        if flags.get(name) is not None:
            take(name, flags[name], f"the flag {setting.flag}")
        elif setting.variable in environ:
            take(name, environ[setting.variable], f"the variable {setting.variable}")
        return name in values

    if not outside("home"):
        values["home"], sources["home"] = (
            _BY_NAME["home"].parse(_BY_NAME["home"].default, "default"),
            "default",
        )
    table, path = _file(flags.get("config") or environ.get("ONEHOP_CONFIG"), values["home"])
    for key in table:
        if key not in _BY_NAME or key == "home":
            raise ConfigurationError(f"{path}: there is no setting {key!r} that a file can have")
    for setting in SETTINGS:
        if setting.name in values or outside(setting.name):
            continue
        if setting.name in table:
            take(setting.name, _placed(setting, table[setting.name], path.parent), f"the file {path}")
        else:
            values[setting.name], sources[setting.name] = setting.default, "default"
    _check_together(values, sources)
    return Settings(**values, sources=sources)


def unknown_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that look like settings and are none, each with the one that may be meant, or ""."""
    known = [setting.variable for setting in SETTINGS]
    names = sorted(
        name
        for name in (os.environ if environ is None else environ)
        if name.startswith("ONEHOP_")
        and not name.startswith("ONEHOP_TEST_")
        and name not in NO_SETTINGS
        and name not in known
    )
    if not names:
        return {}
    from difflib import get_close_matches

    return {name: next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), "") for name in names}


def _check_together(values: dict[str, Any], sources: dict[str, str]) -> None:
    for low, high in _PAIRS:
        if values[low] > values[high]:
            raise ConfigurationError(
                f"{low} (from {sources[low]}) is {values[low]}, more than {high} (from {sources[high]}), "
                f"which is {values[high]}"
            )
    for origin in values["allowed_origins"]:
        scheme, separator, rest = origin.partition("://")
        if scheme not in ("http", "https") or not separator or not rest or "/" in rest:
            raise ConfigurationError(
                f"allowed_origins (from {sources['allowed_origins']}): {origin!r} is not of the form https://name[:port]"
            )


def is_loopback(host: str) -> bool:
    """Only this machine can reach a server that listens there."""
    if host in ("localhost", "::1"):
        return True
    parts = host.split(".")
    return (
        len(parts) == 4
        and parts[0] == "127"
        and all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts)
    )


def _file(named: str | os.PathLike[str] | None, home: Path) -> tuple[dict[str, Any], Path]:
    path = _expand(named) if named else home / CONFIG_FILE
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file), path
    except FileNotFoundError:
        if named:
            raise ConfigurationError(f"config: there is no file {path}") from None
        return {}, path
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"config: {path} cannot be read: {error}") from None


def _expand(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ValueError("'~' has no meaning for this user; give an absolute path") from None


def _placed(setting: Setting, value: Any, folder: Path) -> Any:
    """Paths in the tables of a file are meant from where the file is."""
    if setting.kind is not Tables or not isinstance(value, dict):
        return value
    return {
        name: {"folder": str(folder.absolute()), **one} if isinstance(one, dict) else one
        for name, one in value.items()
    }


def _tables(raw: Any, setting: str) -> Tables:
    import json

    if isinstance(raw, str):
        if raw.lstrip().startswith("{"):
            raw = json.loads(raw)
        else:
            raw = [part.strip() for part in raw.split(",") if part.strip()]
    if isinstance(raw, list | tuple):
        tables: dict[str, Any] = {}
        for target in raw:
            name, found = _model(target) if setting == "models" else _target(target)
            if name in tables:
                raise ValueError(f"there are two of the name {name!r}; give one another, as NAME={target}")
            tables[name] = {"target": found, "folder": os.getcwd()}
        raw = tables
    if not isinstance(raw, dict) or not all(isinstance(one, dict) for one in raw.values()):
        raise TypeError(f"expected a table of its own for each, as [{setting}.NAME], got {raw!r}")
    try:
        return Tables(json.dumps(raw, sort_keys=True) if raw else "")
    except TypeError as error:  # TOML has dates
        raise ValueError(str(error)) from None


def _target(text: Any) -> tuple[str, str]:
    """Name and target of `[NAME=]TARGET`."""
    if not isinstance(text, str) or not text:
        raise TypeError(f"expected texts, got {text!r}")
    name, separator, target = text.partition("=")
    if separator and name.isidentifier() and target:
        return name, target
    address = re.match(r"https?://(?:[^/@]*@)?([^/:]+)", text)
    place = address[1] if address else Path(text.split()[0]).stem
    return re.sub(r"\W", "_", place).lstrip("_0123456789") or "tools", text


def _without_headers(tables: str) -> str:
    """The tables with the values of their headers masked: any of them may be a secret."""
    import json

    found = json.loads(tables or "{}")
    for table in found.values():
        if isinstance(table.get("headers"), dict):
            table["headers"] = dict.fromkeys(table["headers"], MASK)
    return json.dumps(found, sort_keys=True) if found else ""


def _model(text: Any) -> tuple[str, str]:
    """Name and targets of `NAME=UPSTREAM:MODEL`."""
    if not isinstance(text, str):
        raise TypeError(f"expected texts, got {text!r}")
    name, separator, target = text.partition("=")
    if not separator or not name or ":" not in target:
        raise ValueError(f"expected NAME=UPSTREAM:MODEL, got {text!r}")
    return name, target


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(f"expected {_NAMES[bool]}, got {raw!r}")
