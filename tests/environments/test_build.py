"""An environment appears whole or not at all, once, whatever happens to its builders. Builds are real."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from onehop.environments import Environment, add, ensure, list_environments, load
from onehop.environments.build import ensure_lock
from onehop.environments.known import PRELOAD_MARK
from onehop.environments.model import MANIFEST
from onehop.environments.remove import hold, remove
from onehop.errors import EnvironmentBuildError, EnvironmentInUseError
from tests.environments.conftest import lock_of

# Stops at the line that begins with argv[2] until its stdin is closed, so that a test decides what happens
# meanwhile.
BUILDER = """
import sys
from pathlib import Path
from onehop.environments.build import ensure_lock

def tell(line):
    print(line, flush=True)
    if line.startswith(sys.argv[2]):
        sys.stdin.read()

print(ensure_lock("small", sys.argv[3], Path(sys.argv[1]), progress=tell, needs=()).path, flush=True)
"""


def build_small(home: Path, lock: str | None = None, name: str = "small") -> tuple[Environment, list[str]]:
    lines: list[str] = []
    return ensure_lock(name, lock or lock_of("six"), home, progress=lines.append, needs=()), lines


def start_builder(home: Path, stop_at: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(home), stop_at, lock_of("six")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], start: str) -> list[str]:
    """Lines up to the first that begins with `start`; the test's own time limit bounds the wait."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(start):
            return lines
    raise AssertionError(f"never said {start!r}: {lines}")


def leftovers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "environments").iterdir() if path.name.startswith(".staging"))


def test_build_is_complete(tmp_path: Path) -> None:
    environment, lines = build_small(tmp_path, lock_of("six", "tabulate", "wcwidth"))
    assert sorted(environment.packages) == ["six", "tabulate", "wcwidth"]
    assert environment.path == tmp_path / "environments" / f"small-{environment.digest[:12]}"
    assert any(line.startswith("Resolved 3 packages") for line in lines)
    assert lines[-1].startswith("environment 'small' is ready")
    assert leftovers(tmp_path) == []

    python = environment.path / "bin" / "python"
    assert python.resolve() == environment.python
    code = "import sys, tabulate; print(sys.prefix, tabulate.tabulate([[1]], tablefmt='plain'))"
    answer = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == f"{environment.path} 1\n"

    sources = list(environment.site_packages.rglob("*.py"))
    assert len(sources) > 3
    for source in sources:
        assert (source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc").exists()


def test_nothing_inside_names_a_directory_of_the_host(tmp_path: Path) -> None:
    environment, _ = build_small(tmp_path, lock_of("six", "tabulate", "wcwidth"))
    files = [path for path in environment.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(b"/opt/env/lib" in path.read_bytes() for path in files if path.suffix == ".pyc")
    assert [path for path in files if os.fsencode(tmp_path) in path.read_bytes()] == []


def test_everybody_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        environment, _ = build_small(tmp_path)
    finally:
        os.umask(before)
    for path in [environment.path, *environment.path.rglob("*")]:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            wanted = 0o555 if stat.S_ISDIR(mode) else 0o444
            assert mode & wanted == wanted, path


def test_second_call_finds_it_and_builds_nothing(tmp_path: Path) -> None:
    first, _ = build_small(tmp_path)
    inode = first.path.stat().st_ino
    second, lines = build_small(tmp_path)
    assert (second, lines) == (first, [])
    assert second.path.stat().st_ino == inode


def test_manifest_roundtrip_and_list(tmp_path: Path) -> None:
    assert list_environments(tmp_path) == ()
    first, _ = build_small(tmp_path)
    other, _ = build_small(tmp_path, lock_of("wcwidth"))
    assert load(first.path) == first
    assert first.digest != other.digest
    assert set(list_environments(tmp_path)) == {first, other}


@pytest.mark.parametrize("damage", ["{", "[]", '{"layout": 0}', '{"layout": 1, "name": "small"}', None])
def test_a_damaged_environment_is_refused_and_built_again(tmp_path: Path, damage: str | None) -> None:
    environment, _ = build_small(tmp_path)
    manifest = environment.path / MANIFEST
    if damage is None:
        manifest.unlink()
    else:
        manifest.write_text(damage, encoding="utf-8")
    with pytest.raises(EnvironmentBuildError, match="small-"):
        load(environment.path)
    assert list_environments(tmp_path) == ()
    again, lines = build_small(tmp_path)
    assert lines
    assert again == environment
    assert leftovers(tmp_path) == []


def test_wrong_hash_changes_nothing(tmp_path: Path) -> None:
    good, _ = build_small(tmp_path)
    before = sorted(path.name for path in (tmp_path / "environments").iterdir())
    lock = lock_of("wcwidth")
    bad = "\n".join(
        line[: line.index("sha256:") + 7] + "0" * 64 + line[line.index("sha256:") + 71 :]
        if "sha256:" in line
        else line
        for line in lock.splitlines()
    )
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash"):
        build_small(tmp_path, bad)
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash"):
        build_small(tmp_path, "wcwidth==0.2.13\n")
    assert sorted(path.name for path in (tmp_path / "environments").iterdir()) == before
    assert list_environments(tmp_path) == (good,)


def test_a_home_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentBuildError, match="cannot build"):
        build_small(tmp_path / "file")


def test_the_kernels_requirements_are_demanded(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="the kernel needs ipython and msgspec"):
        ensure_lock("small", lock_of("six"), tmp_path, progress=lambda line: None)
    assert list_environments(tmp_path) == ()
    assert leftovers(tmp_path) == []


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    with start_builder(tmp_path, "compiling") as builder:
        read_until(builder, "compiling")
        assert len(leftovers(tmp_path)) == 1
        assert list_environments(tmp_path) == ()
        builder.send_signal(signal.SIGKILL)
    assert len(leftovers(tmp_path)) == 1
    environment, lines = build_small(tmp_path)
    assert lines[0].startswith("building")
    assert leftovers(tmp_path) == []
    assert list_environments(tmp_path) == (environment,)


def test_leftovers_are_removed_even_when_nothing_is_to_be_built(tmp_path: Path) -> None:
    environment, _ = build_small(tmp_path)
    shutil.copytree(environment.path, environment.path.with_name(".staging.small.dead"), symlinks=True)
    keep = environment.path.with_name(".staging.small-2.x")
    keep.mkdir()
    build_small(tmp_path)
    assert leftovers(tmp_path) == [keep.name]


def test_two_builders_build_once(tmp_path: Path) -> None:
    with start_builder(tmp_path, "compiling") as first:
        read_until(first, "compiling")
        with start_builder(tmp_path, "never") as second:
            waiting = read_until(second, "another process is building")
            first_rest, _ = first.communicate()
            second_rest, _ = second.communicate()
    (environment,) = list_environments(tmp_path)
    assert first_rest.splitlines()[-1] == str(environment.path)
    assert len(waiting) == 1
    assert second_rest.splitlines() == [str(environment.path)]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("compiling"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_lock("small", lock_of("six"), tmp_path, progress=interrupt, needs=())
    assert leftovers(tmp_path) == []
    assert list_environments(tmp_path) == ()


@pytest.mark.parametrize("name", ["", "a.b", "../x", "A", "-a", "a" * 64, "a/b", "a\0"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EnvironmentBuildError, match="no name for an environment"):
        ensure(name, tmp_path, progress=lambda line: None)


def test_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="there is no environment 'mine'"):
        ensure("mine", tmp_path, progress=lambda line: None)


def test_add_brings_what_the_kernel_needs_and_is_remembered(tmp_path: Path) -> None:
    environment = add("mine", "six\n", tmp_path, progress=lambda line: None)
    assert {"six", "ipython", "msgspec"} <= set(environment.packages)
    assert "IPython.core.interactiveshell" in environment.preload
    assert "pandas" not in environment.preload
    assert ensure("mine", tmp_path, progress=lambda line: None) == environment


def test_add_refuses_what_cannot_be_satisfied_and_forgets_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="uv failed"):
        add("mine", "six==1.0\nsix==1.17.0\n", tmp_path, progress=lambda line: None)
    with pytest.raises(EnvironmentBuildError, match="there is no environment"):
        ensure("mine", tmp_path, progress=lambda line: None)
    with pytest.raises(EnvironmentBuildError, match="take another name"):
        add("default", "six\n", tmp_path, progress=lambda line: None)


def test_what_it_shall_preload_is_in_the_lock_and_tried(tmp_path: Path) -> None:
    lock = PRELOAD_MARK + "tabulate\n" + lock_of("tabulate", "wcwidth")
    environment, lines = build_small(tmp_path, lock)
    assert environment.preload[-1] == "tabulate"
    assert "importing tabulate" in lines
    with pytest.raises(EnvironmentBuildError, match="to preload are not in the environment: absent"):
        build_small(tmp_path, PRELOAD_MARK + "absent\n" + lock_of("six"))
    with pytest.raises(EnvironmentBuildError, match=r"start threads \(polars"):
        build_small(tmp_path, PRELOAD_MARK + "polars\n" + lock_of("polars", "polars-runtime-32"))
    assert list_environments(tmp_path) == (environment,)
    assert leftovers(tmp_path) == []


def test_what_is_held_is_not_removed(tmp_path: Path) -> None:
    first, _ = build_small(tmp_path)
    second, _ = build_small(tmp_path, lock_of("wcwidth"))
    (tmp_path / "environments" / "small.lock").write_text(lock_of("wcwidth"))
    before = sorted(path.name for path in (tmp_path / "environments").iterdir())
    held = hold(first.path)
    with pytest.raises(EnvironmentInUseError, match=first.path.name):
        remove("small", tmp_path, wait_s=0.1)
    assert sorted(path.name for path in (tmp_path / "environments").iterdir()) == before
    assert load(first.path) == first
    os.close(held)
    assert remove("small", tmp_path) == 2
    assert list_environments(tmp_path) == ()
    assert not second.path.exists()
    with pytest.raises(EnvironmentBuildError, match="there is no environment"):
        remove("small", tmp_path)


def test_a_removal_that_was_killed_goes_on(tmp_path: Path) -> None:
    build_small(tmp_path)
    (tmp_path / "environments" / ".small.removing").write_text(lock_of("six"))
    assert remove("small", tmp_path) == 1
    assert sorted(os.listdir(tmp_path / "environments")) == [".small.building"]
