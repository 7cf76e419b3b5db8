"""The seed: a small process from which an environment's zygote and the inits of its sandboxes are forked.

It owns what they have in common, root and user namespace, and imports next to nothing, so that an init is a
copy of a few megabytes and not of the zygote's hundred. A zygote that died is replaced from here, in the
same user namespace: only so can it enter sandboxes that exist. It never runs user code and has one thread.
Requests come from the supervisor on descriptor 3, a SOCK_SEQPACKET socket.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket

from onehop.jail import root, syscalls
from onehop.zygote import birth, init, launch, main

CONTROL_FD, SPEC_FD = 3, 4
MESSAGE_BYTES = 65536


def start() -> None:
    control = socket.socket(fileno=CONTROL_FD)
    for fd in (CONTROL_FD, SPEC_FD):
        os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    spec = launch.read_spec(SPEC_FD)
    del spec["code"]
    template = birth.Template(spec)
    if template.namespaces:
        syscalls.umount(root.CODE_MOUNT, syscalls.MNT_DETACH)
    syscalls.prctl_name("onehop-seed")
    gc.collect()
    gc.freeze()
    gc.disable()
    _serve(control, template)


def _serve(control: socket.socket, template: birth.Template) -> None:
    while True:
        raw, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 8)
        if not raw:
            os._exit(0)  # the supervisor is gone
        request = json.loads(raw)
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            if request["do"] == "zygote":
                pid = _fork_zygote(control, fds[0])
            else:
                pid = init.fork([CONTROL_FD, SPEC_FD], request, fds, template)
            reply = {"event": request["do"], "slot": request.get("slot"), "pid": pid}
        except OSError as error:
            reply = {"event": "failed", "slot": request.get("slot"), "detail": str(error)}
        for fd in fds:
            os.close(fd)
        control.send(json.dumps(reply).encode())


def _fork_zygote(control: socket.socket, zygote_control: int) -> int:
    """A child of the supervisor, not of ours (CLONE_PARENT)."""
    pid = syscalls.clone(syscalls.CLONE_PARENT)
    if pid == 0:
        try:
            control.detach()
            os.dup2(zygote_control, CONTROL_FD, inheritable=False)
            spec = os.dup(SPEC_FD)
            os.closerange(SPEC_FD, spec)
            os.closerange(spec + 1, 4096)
            syscalls.prctl_name("python")
            gc.enable()
            main.start(CONTROL_FD, spec)
        finally:
            os._exit(1)
    return pid
