"""The peer that hosted interpreters are made of: an ipykernel, spoken to by jupyter_client over ZeroMQ.

Its kernel runs on the sandbox environment's python; ipykernel itself comes from the benchmark's virtual
environment, appended to the path. There is no HTTP server between, which is to its advantage.
"""

from __future__ import annotations

import json
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from bench.cells import Cell, WrongAnswerError
from bench.processes import variables
from onehop.environments import Environment

NAME = "jupyter_client"
TIMEOUT_S = 60.0
_SPEC = "onehop-bench"


class Kernels:
    """Starts kernels. Use as a context manager: it owns the kernel specification's folder."""

    def __init__(self, environment: Environment) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-jupyter-")
        start = (
            f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); "
            "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
        )
        spec = {
            "argv": [
                f"{environment.path}/bin/python",
                "-c",
                start,
                "--log-level=40",
                "-f",
                "{connection_file}",
            ],
            "display_name": _SPEC,
            "language": "python",
        }
        folder = Path(self._folder.name, _SPEC)
        folder.mkdir()
        (folder / "kernel.json").write_text(json.dumps(spec))
        self._specs = KernelSpecManager(kernel_dirs=[self._folder.name], ensure_native_kernel=False)
        self._variables = variables() | {"JUPYTER_RUNTIME_DIR": self._folder.name, "HOME": self._folder.name}

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def start(self) -> Kernel:
        """A kernel that has answered its first request."""
        manager = KernelManager(kernel_name=_SPEC, kernel_spec_manager=self._specs)
        manager.start_kernel(env=self._variables)
        client = manager.blocking_client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=TIMEOUT_S)
        except BaseException:
            manager.shutdown_kernel(now=True)
            raise
        return Kernel(manager, client)


class Kernel:
    """One kernel and its client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client

    def run(self, cell: Cell) -> None:
        """Runs the cell until the kernel is idle again and has replied; checks what it displayed."""
        request = self._client.execute(cell.code)
        shown = []
        while True:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                shown.append(content["text"])
            elif kind == "execute_result":
                shown.append(content["data"]["text/plain"])
            elif kind == "error":
                raise WrongAnswerError(f"{content['ename']}: {content['evalue']}")
            elif kind == "status" and content["execution_state"] == "idle":
                break
        while self._client.get_shell_msg(timeout=TIMEOUT_S)["parent_header"].get("msg_id") != request:
            pass
        cell.check("".join(shown))

    @property
    def pid(self) -> int:
        provisioner = self._manager.provisioner
        assert isinstance(provisioner, LocalProvisioner)
        pid: int | None = provisioner.pid
        assert pid is not None
        return pid

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
