"""The root that a sandbox sees, looked at from within one."""

from __future__ import annotations

import ast
import os

from onehop.environments.model import Environment
from onehop.jail import root
from tests.driver import Session
from tests.kernel.reading import value


def listing(session: Session, path: str) -> list[str]:
    found: list[str] = ast.literal_eval(value(session.run(f"import os; sorted(os.listdir({path!r}))")))
    return found


def test_exactly_what_is_there(session: Session, environment: Environment) -> None:
    host = {
        name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") if os.path.lexists(f"/{name}")
    } - {"libx32"}
    prefixes = {path.split("/")[1] for path in map(str, (environment.base_prefix, environment.python))}
    assert set(listing(session, "/")) == (
        {"dev", "etc", "home", "mnt", "opt", "proc", "run", "tmp", "usr", "var", "workspace"} | host | prefixes)  # fmt: skip
    assert listing(session, "/workspace") == []
    assert (listing(session, "/mnt"), listing(session, "/home")) == (["data"], ["user"])
    assert listing(session, "/opt") == ["env", "onehop"]
    assert listing(session, "/opt/onehop") == []
    assert set(listing(session, "/dev")) == {*root.DEVICES, "fd", "shm", "stderr", "stdin", "stdout"}
    etc = set(listing(session, "/etc"))
    assert etc <= {*root.ETC, *root.ETC_BINDS, "localtime", "os-release"} | etc & {"fonts"}
    assert set(root.ETC) <= etc
    assert listing(session, "/var") == ["tmp"]
    assert listing(session, "/run") == ["empty"]
    assert set(listing(session, "/usr")) <= {
        "bin",
        "sbin",
        "lib",
        "lib32",
        "lib64",
        "libexec",
        "share",
        "local",
    }
    assert [name for name in listing(session, "/proc") if not name.isdigit()] == ["self", "thread-self"]


def test_nothing_of_the_host_and_nothing_writable(session: Session) -> None:
    code = ("import os\nfound = []\nfor top, dirs, files in os.walk('/'):\n"
            "    if top.startswith(('/proc', '/workspace', '/tmp', '/dev/shm')): dirs.clear(); continue\n"
            "    if os.access(top, os.W_OK): found.append(top)\nfound")  # fmt: skip
    assert value(session.run(code, timeout_s=60)) == "[]"
    code = ("found = []\nfor line in open('/proc/self/mountinfo'):\n    at, options = line.split()[4:6]\n"
            "    found.append((at, 'ro' in options.split(','), 'nosuid' in options.split(',')))\n"
            "[f for f in found if not f[1] and not f[0].startswith(('/dev/', '/proc'))], [f for f in found if not f[2]]")  # fmt: skip
    writable, may_set_uid = ast.literal_eval(value(session.run(code)))
    assert {at for at, *_ in writable} == {"/tmp", "/workspace"}
    assert may_set_uid == []


def test_the_places_that_can_be_written(session: Session) -> None:
    assert value(session.run(
        "import os\nfor d in ('/workspace', '/tmp', '/dev/shm'):\n    open(d + '/f', 'w').close(); os.remove(d + '/f')\n'all'"
    )) == "'all'"  # fmt: skip
    assert (
        value(session.run("open('/dev/null', 'w').write('x'); len(open('/dev/urandom', 'rb').read(8))"))
        == "8"
    )
    outcome = session.run("import os; open('/dev/stderr', 'w').write('e'); open('/dev/stdout', 'a').write('o'); "
                          "os.system('echo s > /dev/stdout; echo t > /dev/fd/2'); 1")  # fmt: skip
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "os\n", "et\n")


def test_the_habit_of_models(session: Session) -> None:
    """Code that writes to /mnt/data, as it may elsewhere, writes to the workspace."""
    code = "import os; open('/mnt/data/a.txt', 'w').write('abc'); os.path.realpath('/mnt/data'), open('/home/user/a.txt').read()"
    assert value(session.run(code)) == "('/workspace', 'abc')"


def test_who_one_is(session: Session) -> None:
    code = "import getpass, os, pwd, socket\nos.getuid(), os.getgid(), os.getgroups() in ([], [1000], [65534]), getpass.getuser(), pwd.getpwuid(1000).pw_dir, socket.gethostname()"
    assert value(session.run(code)) == "(1000, 1000, True, 'sandbox', '/workspace', 'sandbox')"
