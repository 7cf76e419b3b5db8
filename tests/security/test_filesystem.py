"""The mounts, the root, and what can be read and written; Landlock apart from mounts and permissions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onehop.environments.model import Environment
from onehop.jail import root, syscalls
from onehop.supervisor.spawn import SupervisorHandle
from tests.driver import Driver
from tests.security.probes import Case, inside, judge, outside

REPOSITORY = Path(__file__).resolve().parents[2]
WRITABLE = {"/tmp", "/dev/shm", "/workspace"}
DEVICES = {f"/dev/{name}" for name in root.DEVICES}

MOUNTS = """
found['mounts'] = []
for line in open('/proc/self/mountinfo'):
    left, _, right = line.rstrip().partition(' - ')
    fields = left.split()
    found['mounts'].append([fields[4], fields[5].split(','), right.split()[0], right.split()[2].split(',')])
"""


def expected_mounts(environment: Environment) -> set[str]:
    """Every mount point that root.py and enter.py make on this machine."""
    base = str(environment.base_prefix)
    version = ".".join(environment.python_version.split(".")[:2])
    points = {"/", "/proc", root.ENVIRONMENT_MOUNT} | WRITABLE | DEVICES
    points |= {
        f"/{name}" for name in root.SYSTEM if Path("/", name).is_dir() and not Path("/", name).is_symlink()
    }
    points |= {f"/etc/{name}" for name in root.ETC_BINDS if Path("/etc", name).exists()}
    library = f"{base}/lib/python{version}"
    points |= {f"/{name}" for name in root.HIDDEN if Path("/", name).is_dir()}
    points |= {
        f"{library}/{name}" for name in ("site-packages", "dist-packages") if Path(library, name).is_dir()
    }
    if base != "/usr":
        points.add(library)
        points |= {
            e.path
            for e in os.scandir(f"{base}/lib")
            if ".so" in e.name and e.is_file() and not e.is_symlink()
        }
        points.add(str(environment.python))
    return points


def test_the_mount_table_is_exactly_this(driver: Driver, environment: Environment) -> None:
    """A new mount fails here until somebody has classified it."""
    mounts = inside(driver, MOUNTS)["mounts"]
    points = {point for point, *_ in mounts}
    required = expected_mounts(environment)
    # What the host itself has mounted below /usr comes along, read-only like the rest.
    extra = {
        point for point in points - required if not point.startswith(("/usr/", root.ENVIRONMENT_MOUNT + "/"))
    }
    assert extra == set()
    assert {p for p in required - points if not p.startswith(str(environment.base_prefix))} == set()
    for point, flags, kind, _ in mounts:
        assert "nosuid" in flags, point
        if point in DEVICES:
            # A device node on a nodev mount cannot be opened.
            assert "noexec" in flags, point
            continue
        assert "nodev" in flags, point
        if point in WRITABLE:
            assert (kind, "rw" in flags) == ("tmpfs", True), point
        elif point == "/proc":
            assert "noexec" in flags
            assert kind == "proc"
        else:
            assert "ro" in flags, point


def test_proc_is_restricted_where_user_code_sees_it(driver: Driver) -> None:
    mounts = inside(driver, MOUNTS)["mounts"]
    last = [options for point, _, kind, options in mounts if point == "/proc"][-1]
    assert "subset=pid" in last
    assert {"hidepid=invisible", "hidepid=2"} & set(last)


def test_the_root_and_its_own_directories_are_exactly_these(driver: Driver, environment: Environment) -> None:
    found = inside(
        driver,
        "for p in ('/', '/etc', '/dev', '/home', '/mnt', '/opt', '/run', '/var'): found[p] = sorted(os.listdir(p))",
    )
    entries = {name.split("/")[0] for name in root.SYSTEM if Path("/", name).exists()}
    entries |= {"etc", "dev", "proc", "tmp", "workspace", "run", "opt", "var", "home", "mnt"}
    entries |= {str(environment.base_prefix).split("/")[1], str(environment.python).split("/")[1]}
    assert set(found["/"]) == entries
    etc = set(root.ETC) | {name for name in root.ETC_BINDS if Path("/etc", name).exists()}
    assert set(found["/etc"]) == etc | {"localtime", "os-release"}
    assert set(found["/dev"]) == set(root.DEVICES) | {"shm", "fd", "stdin", "stdout", "stderr"}
    assert (found["/opt"], found["/run"], found["/var"]) == (["env", "onehop"], ["empty"], ["tmp"])
    assert (found["/home"], found["/mnt"]) == (["user"], ["data"]), "the links to the workspace"


def test_nothing_of_the_server_is_visible(
    driver: Driver, supervisor: SupervisorHandle, onehop_home: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    paths = [str(p) for p in (
        REPOSITORY, Path(syscalls.__file__), onehop_home, supervisor.path, supervisor.runtime, secret,
        "/etc/shadow", "/etc/ssh", "/var/run", "/sys", "/boot", "/srv",
    )]  # fmt: skip
    probe = f"for p in {paths}: found[p] = attempt(os.lstat, p)"
    control = outside(probe)
    assert {control[str(p)] for p in (onehop_home, supervisor.path, secret, "/etc/shadow")} == {"through"}
    assert set(inside(driver, probe).values()) == {"ENOENT"}


def test_our_source_is_nowhere_in_the_tree(driver: Driver) -> None:
    """What the zygote imported is in its memory only; /opt/onehop, where it came from, is empty."""
    found = inside(
        driver,
        """
found['named'] = [os.path.join(d, n) for d, ds, fs in os.walk('/') if not d.startswith('/proc')
                  for n in ds + fs if 'onehop' in n.lower()]
found['holds'] = os.listdir('/opt/onehop')
""",
    )
    # What an environment brings: its warm-up and its own description; nothing of the server.
    own = [p for p in found["named"] if not p.startswith(root.ENVIRONMENT_MOUNT + "/")]
    assert own == ["/opt/onehop"]
    brought = {os.path.basename(p).split(".")[0] for p in found["named"]} - {"onehop"}
    assert brought <= {"onehop_warm"}
    assert found["holds"] == []


def test_the_servers_socket_cannot_be_connected_to(driver: Driver, supervisor: SupervisorHandle) -> None:
    probe = f"found['it'] = attempt(socket.socket(socket.AF_UNIX).connect, {supervisor.path!r})"
    assert outside(probe)["it"] == "through"
    assert inside(driver, probe)["it"] == "ENOENT"


def _create(path: str) -> str:
    return (
        f"answer = attempt(os.open, {path!r}, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)\n"
        f"if answer == 'through': os.unlink({path!r})"
    )


READ_ONLY = {
    "create in /usr/bin": Case(_create("/usr/bin/onehop-probe"), ("EROFS",), control_needs_root=True),
    "create in /usr/lib": Case(_create("/usr/lib/onehop-probe"), ("EROFS",), control_needs_root=True),
    "create in /etc": Case(_create("/etc/onehop-probe"), ("EROFS",), control_needs_root=True),
    "create in /": Case(_create("/onehop-probe"), ("EROFS",), control_needs_root=True),
    "create in /dev": Case(_create("/dev/onehop-probe"), ("EROFS",), control_needs_root=True),
    "change the host's os-release": Case(
        "answer = attempt(os.open, '/usr/lib/os-release', os.O_WRONLY)", ("EACCES", "EROFS"), control_needs_root=True
    ),
    "change its permissions": Case(
        "s = os.stat('/usr/lib/os-release'); answer = attempt(os.chmod, '/usr/lib/os-release', s.st_mode)",
        ("EROFS",), control_needs_root=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only_mounts(driver: Driver, name: str) -> None:
    judge(driver, READ_ONLY[name])


def test_the_environment_is_read_only(driver: Driver) -> None:
    found = inside(
        driver,
        """
import sysconfig
packages = sysconfig.get_paths()['purelib']
found['create'] = attempt(os.open, packages + '/sitecustomize.py', os.O_WRONLY | os.O_CREAT)
found['python'] = attempt(os.open, '/opt/env/pyvenv.cfg', os.O_WRONLY)
found['usable'] = os.path.isdir(packages)
""",
    )
    assert found == {"create": "EROFS", "python": found["python"], "usable": True}
    assert found["python"] in ("EACCES", "EROFS")


# Mounted writable and owned by the process itself: only Landlock stands in the way.
LANDLOCK = {
    "write oom_score_adj": Case(
        "answer = attempt(os.open, '/proc/self/oom_score_adj', os.O_WRONLY)", ("EACCES",)
    ),
    "write comm": Case("answer = attempt(os.open, '/proc/self/comm', os.O_WRONLY)", ("EACCES",)),
    "write coredump_filter": Case(
        "answer = attempt(os.open, '/proc/self/coredump_filter', os.O_RDWR)", ("EACCES",)
    ),
    "write own memory": Case("answer = attempt(os.open, '/proc/self/mem', os.O_RDWR)", ("EACCES",)),
}
DEVICE_CONTROL = Case(
    "import fcntl; answer = attempt(fcntl.ioctl, os.open('/dev/urandom', os.O_RDONLY), 0x80045200, bytes(4))",
    ("EACCES",),
)


@pytest.mark.parametrize("name", LANDLOCK)
def test_landlock_alone(driver: Driver, name: str) -> None:
    if syscalls.landlock_abi() == 0:
        pytest.skip("this kernel has no Landlock")
    judge(driver, LANDLOCK[name])


def test_landlock_refuses_device_ioctls(driver: Driver) -> None:
    if syscalls.landlock_abi() < 5:
        pytest.skip("Landlock refuses ioctl on devices from ABI 5 on")
    judge(driver, DEVICE_CONTROL)


def test_what_user_code_may_do_with_files(driver: Driver) -> None:
    """The other side of all walls above."""
    found = inside(
        driver,
        """
for place in ('/workspace', '/tmp', '/dev/shm'):
    path = place + '/probe'
    found[place] = [attempt(os.mkdir, path), attempt(lambda: open(path + '/file', 'w').write('x')),
                    attempt(os.rename, path + '/file', path + '/other'), attempt(os.symlink, 'a', path + '/link'),
                    attempt(os.link, path + '/other', path + '/hard'), attempt(os.truncate, path + '/other', 0)]
for name in ('null', 'zero', 'full', 'random', 'urandom'):
    found[name] = attempt(open, '/dev/' + name, 'rb')
""",
    )
    assert {str(answer) for answer in found.values()} == {str(["through"] * 6), "through"}


def test_an_own_set_user_id_file_gains_nothing(driver: Driver) -> None:
    found = inside(
        driver,
        """
import shutil, subprocess
shutil.copy('/usr/bin/id', '/tmp/id'); os.chmod('/tmp/id', 0o6755)
found['nosuid'] = bool(os.statvfs('/tmp').f_flag & os.ST_NOSUID)
found['ids'] = subprocess.check_output(['/tmp/id', '-u'], text=True).strip()
""",
    )
    assert found == {"nosuid": True, "ids": "1000"}
