"""What an environment is, how it is described on disk, and what the processes inside it need in `os.environ`.

Data only: nothing here builds, downloads or writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onehop.errors import EnvironmentBuildError

LAYOUT_VERSION = 1
"""Part of the digest: raise it when the same lock has to be laid out differently on disk."""

MOUNT_POINT = "/opt/env"
"""Where the jail mounts an environment; bytecode names its sources under this path, not under the host's."""

SHARE = Path("share", "onehop")
"""Our own files inside an environment, relative to its root."""

MANIFEST = SHARE / "environment.json"

DEFAULT_NAME = "default"

KERNEL_REQUIREMENTS = ("ipython", "msgspec")
"""The kernel runs on these, so every environment has them."""

ALLOWED_THREADS = ("jemalloc_bg_thd", "python", "AwsEventLoop")
"""Names of threads that a zygote may have; a fork loses every thread but one."""

ENVIRONMENT_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        # No thread may exist when the zygote forks. Measured on two cores: numpy's OpenBLAS starts one
        # thread per core at import, pyarrow's jemalloc one (`jemalloc_bg_thd`; pandas 3 imports pyarrow by
        # itself). With these three variables `import numpy, pandas, matplotlib.pyplot, IPython` leaves one
        # thread.
        "OPENBLAS_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "_RJEM_MALLOC_CONF": "background_thread:false",  # polars and orjson's kind of jemalloc
        # Many sandboxes share the cores, and one sandbox has 64 processes and threads in all: a library that
        # starts a thread per core of a big host runs into that. Code can ask for more (threadpoolctl,
        # n_jobs).
        "OMP_NUM_THREADS": "1",  # scikit-learn; pyarrow sizes its CPU pool by it as well
        "ARROW_IO_THREADS": "2",  # 8 otherwise
        # pyarrow's mimalloc reserves 1 GiB and dirties 4 MiB at the first string column; malloc does not: 5.6 MB less
        # private memory in a session that has printed one DataFrame.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "POLARS_MAX_THREADS": "2",
        "LOKY_MAX_CPU_COUNT": "1",  # joblib would look for lscpu and warn that it is missing
        # Caches belong to nobody: they must not appear among the session's files, and HOME is the workspace.
        "XDG_CACHE_HOME": "/tmp/.cache",
        "IPYTHONDIR": "/tmp/.ipython",
        # Matplotlib insists on a writable directory. The kernel never looks there, its font list comes from
        # the environment (see warm.py); a python started by user code builds its own list there in 0.3 s.
        "MPLCONFIGDIR": "/tmp/.cache/matplotlib",
        "MPLBACKEND": "agg",  # the kernel sets its own; this one is for processes that user code starts
        "PLOTLY_RENDERER": "plotly_mimetype",  # fig.show() would open a browser
        "PYTHONDONTWRITEBYTECODE": "1",  # the environment is read-only; __pycache__ is no file of the session
        "PYTHONNOUSERSITE": "1",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }
)
"""Set these before the zygote's interpreter starts: most are read once, when a library is loaded."""


@dataclass(frozen=True)
class Environment:
    """A built environment.

    Attributes:
        name: what users call it.
        digest: SHA-256 over lock, preload list, interpreter and layout, in hex.
        path: its directory on the host, mounted read-only at MOUNT_POINT in a jail.
        python: the base interpreter, real path; the jail must show `base_prefix` at the same place.
        python_version: as in "3.11.7".
        base_prefix: where that interpreter's standard library lies.
        packages: normalised distribution name to version, as installed.
        preload: modules that the zygote imports before it forks, in this order.
    """

    name: str
    digest: str
    path: Path
    python: Path
    python_version: str
    base_prefix: Path
    packages: dict[str, str] = field(hash=False)
    preload: tuple[str, ...]

    @property
    def site_packages(self) -> Path:
        """Where the packages lie, on the host."""
        major, minor = self.python_version.split(".")[:2]
        return self.path / "lib" / f"python{major}.{minor}" / "site-packages"

    def manifest(self) -> str:
        """The JSON that `load` reads back. It names no directory of the host but the interpreter's."""
        return json.dumps(
            {
                "layout": LAYOUT_VERSION,
                "name": self.name,
                "digest": self.digest,
                "python": str(self.python),
                "python_version": self.python_version,
                "base_prefix": str(self.base_prefix),
                "packages": self.packages,
                "preload": list(self.preload),
            },
            indent=1,
        )


def load(path: Path) -> Environment:
    """Read the environment at `path` back from its manifest.

    Raises:
        EnvironmentBuildError: there is none, it is of another layout, or it is damaged.
    """
    try:
        document: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if document["layout"] != LAYOUT_VERSION:
            raise EnvironmentBuildError(f"{path}: layout {document['layout']}, expected {LAYOUT_VERSION}")
        return Environment(
            name=str(document["name"]),
            digest=str(document["digest"]),
            path=path,
            python=Path(document["python"]),
            python_version=str(document["python_version"]),
            base_prefix=Path(document["base_prefix"]),
            packages={str(name): str(version) for name, version in document["packages"].items()},
            preload=tuple(str(module) for module in document["preload"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentBuildError(f"no usable environment at {path}: {error!r}") from error
