"""From tables, flags and variables to sources; what is wrong is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onehop import config
from onehop.errors import ConfigurationError
from onehop.tools import configure
from onehop.tools.model import SourceSpec


def specs(home: Path, toml: str = "", *flags: str, **environ: str) -> list[SourceSpec]:
    (home / "config.toml").write_text(toml)
    given = {"home": str(home)} | ({"tools": list(flags)} if flags else {})
    return configure.sources(config.load(given, environ))


def test_tables_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    (one,) = specs(
        tmp_path,
        '[tools.weather]\nkind = "python"\nmodule = "mine.py"\nsecrets = ["A", "B"]\ntimeout_s = 5\n'
        'requires_approval = ["delete_*"]\n',
    )
    assert one == SourceSpec(
        name="weather",
        kind="python",
        options={"module": str(tmp_path / "mine.py")},
        secrets=("A", "B"),
        readable=(str(tmp_path / "mine.py"),),
        requires_approval=("delete_*",),
        timeout_s=5,
    )


def test_flags_come_instead_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = '[tools.a]\nkind = "python"\nmodule = "a.py"\n'
    assert [one.name for one in specs(tmp_path, table)] == ["a"]
    one, two = specs(tmp_path, table, "b.py", "other=lib/c.py")
    assert (one.name, one.options) == ("b", {"module": str(tmp_path / "b.py")})
    assert (two.name, two.options) == ("other", {"module": str(tmp_path / "lib/c.py")})
    assert [one.name for one in specs(tmp_path, table, ONEHOP_TOOLS="x.py,y.py")] == ["x", "y"]


@pytest.mark.parametrize(
    ("target", "name", "kind", "option"),
    [
        ("my-tools.py", "my_tools", "python", "module"),
        ("petstore.json", "petstore", "openapi", "document"),
        ("petstore.yaml", "petstore", "openapi", "document"),
        ("https://api.example.org/openapi.json", "api_example_org", "openapi", "document"),
        ("api=https://api.example.org/openapi.json", "api", "openapi", "document"),
        ("clock=python3 clock_server.py", "clock", "mcp", "command"),
    ],
)
def test_what_a_target_is(tmp_path: Path, target: str, name: str, kind: str, option: str) -> None:
    (one,) = specs(tmp_path, "", target)
    assert (one.name, one.kind, [*one.options]) == (name, kind, [option])


def test_what_another_process_gets_is_the_same(tmp_path: Path) -> None:
    settings = config.load({"home": str(tmp_path), "tools": ["b.py", "c=x.json"]}, {})
    again = config.load({}, settings.environ() | {"ONEHOP_CONFIG": "/dev/null"})
    assert configure.sources(again) == configure.sources(settings)
    assert json.loads(settings.tools).keys() == {"b", "c"}


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("tools = 5\n", "tools (from the file"),
        ("[tools]\nx = 1\n", "[tools.NAME]"),
        ("[tools.x]\n", "tools.x (from the file"),
        ('[tools.x]\nkind = "magic"\n', "expected one of python, openapi, mcp, got 'magic'"),
        ('[tools.x]\nkind = "python"\n', "`module` is missing"),
        ('[tools.x]\nkind = "python"\nmodule = "a.py"\nmodul = 1\n', "there is no member 'modul'"),
        ('[tools.x]\nkind = "python"\nmodule = "a.py"\ntimeout_s = -1\n', "tools.x (from the file"),
        (
            '[tools.x]\nkind = "python"\nmodule = "a.py"\nsecrets = [1]\n',
            ".secrets: expected a list of texts",
        ),
        ('[tools."a b"]\nkind = "python"\nmodule = "a.py"\n', "a source's name is a Python name"),
        ('[tools.x]\nkind = "openapi"\n', "document"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        specs(tmp_path, toml)
    assert words in str(caught.value)


def test_two_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"NAME=lib/a\.py"):
        specs(tmp_path, "", "a.py", "lib/a.py")


def test_files_and_secrets_that_are_not_there(tmp_path: Path) -> None:
    found = specs(tmp_path, '[tools.x]\nkind = "python"\nmodule = "a.py"\nsecrets = ["NOT_SET"]\n')
    with pytest.raises(ConfigurationError, match=r"tools\.x: there is no variable NOT_SET"):
        configure.check(found, {})
    with pytest.raises(ConfigurationError, match=r"tools.x: there is no .*/a\.py"):
        configure.check(found, {"NOT_SET": "x"})
    (tmp_path / "a.py").touch()
    configure.check(found, {"NOT_SET": "x"})


def test_the_tables_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()
    tables = "".join(block.partition("```")[0] for block in page.split("```toml\n")[1:])
    found = {one.name: one for one in specs(tmp_path, tables)}
    assert {"shop", "time", "tracker"} <= found.keys()
    assert found["shop"].readable == (str(tmp_path / "shop.yaml"),)
