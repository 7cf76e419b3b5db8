"""Compiles policy/seccomp.toml into a BPF program, once per kind of machine, outside the wall.

libseccomp does the compiling. The program's default is ENOSYS, never KILL; a foreign architecture
(32-bit calls on a 64-bit machine) gets ENOSYS, too.
"""

from __future__ import annotations

import errno
import functools
import tempfile
import tomllib
from importlib import resources
from typing import Any

from onehop.errors import JailError

LINUX_COMPAT_MASK = 0xFFFFFFFF
"""Arguments that the kernel reads as 32-bit int are compared in their low half only."""


def load_policy() -> dict[str, Any]:
    """The policy file as data, for the compiler, the documentation and the tests."""
    text = resources.files("onehop.jail").joinpath("policy/seccomp.toml").read_text()
    return tomllib.loads(text)


@functools.cache
def compile_policy(*, cgroup_memory: bool, network_namespace: bool) -> bytes:
    """The BPF program for a sandbox.

    Args:
        cgroup_memory: a cgroup counts the sandbox's memory, so kinds of memory that a watcher
            cannot see are allowed.
        network_namespace: the sandbox has a network of its own, so INET sockets are harmless.

    Raises:
        JailError: libseccomp is missing or refuses the policy.
    """
    try:
        import pyseccomp as sc
    except (ImportError, RuntimeError) as error:
        raise JailError(f"libseccomp cannot be loaded ({error}); apt-get install libseccomp2") from error
    policy = load_policy()
    program = sc.SyscallFilter(defaction=sc.ERRNO(errno.ENOSYS))
    try:
        program.set_attr(sc.Attr.ACT_BADARCH, sc.ERRNO(errno.ENOSYS))
        program.set_attr(sc.Attr.CTL_OPTIMIZE, 2)  # a binary tree: fewer comparisons per call
        for entry in policy["allow"]:
            for call in entry["calls"]:
                _rule(program, sc, sc.ALLOW, call)
        for entry in policy["deny"]:
            for call in entry["calls"]:
                _rule(program, sc, sc.ERRNO(errno.EPERM), call)
        refused: dict[str, tuple[int, list[dict[str, int]]]] = {}
        for entry in policy["allow_when"]:
            call = entry["call"]
            number = getattr(errno, entry["errno"])
            active = (cgroup_memory or not entry.get("cgroup")) and (
                network_namespace or not entry.get("network")
            )
            conditions: list[dict[str, int]] = entry["arguments"]
            refused.setdefault(call, (number, []))
            if not active:
                continue
            if not conditions:
                _rule(program, sc, sc.ALLOW, call)
                refused.pop(call)
                continue
            for alternative in _conditions(sc, conditions):
                _rule(program, sc, sc.ALLOW, call, *alternative)
            refused[call][1].extend(conditions)
        for call, (number, conditions) in refused.items():
            _refuse_rest(program, sc, call, number, conditions)
        with tempfile.TemporaryFile() as file:
            program.export_bpf(file)
            file.seek(0)
            return file.read()
    except (OSError, RuntimeError, ValueError) as error:
        raise JailError(f"libseccomp refuses policy/seccomp.toml: {error}") from error


def _rule(program: Any, sc: Any, action: int, call: str, *conditions: Any) -> None:
    if sc.resolve_syscall(sc.Arch.NATIVE, call) < 0:
        return  # a call of another architecture or one that this libseccomp does not know: the default refuses it
    program.add_rule(action, call, *conditions)


def _conditions(sc: Any, conditions: list[dict[str, int]]) -> list[list[Any]]:
    """The rules that together say "every condition fits"."""
    if len(conditions) == 1 and "differs" in conditions[0]:
        # The kernel reads such an argument as 32-bit int, so a comparison of all 64 bits could be passed by
        # setting a high one (TIOCSTI in snapd, CVE-2019-7303). libseccomp has no masked "differs": one rule a bit.
        index, value = conditions[0]["index"], conditions[0]["differs"]
        return [[sc.Arg(index, sc.MASKED_EQ, bit, ~value & bit)] for bit in (1 << n for n in range(32))]
    return [[_condition(sc, condition) for condition in conditions]]


def _condition(sc: Any, condition: dict[str, int]) -> Any:
    index = condition["index"]
    if "mask" in condition:
        return sc.Arg(index, sc.MASKED_EQ, condition["mask"], condition["equals"])
    return sc.Arg(index, sc.EQ, condition["equals"])


def _refuse_rest(program: Any, sc: Any, call: str, number: int, conditions: list[dict[str, int]]) -> None:
    """Arguments that no rule allows get `number` instead of the default ENOSYS, where libseccomp can say so.

    It takes one comparison per argument and rule, so the complement of one condition is exact, and
    that of several equalities on one argument is a chain of ranges.
    """
    action = sc.ERRNO(number)
    if not conditions:
        _rule(program, sc, action, call)
        return
    index = conditions[0]["index"]
    if len(conditions) == 1:
        only = conditions[0]
        if "differs" in only:
            _rule(program, sc, action, call, sc.Arg(index, sc.MASKED_EQ, LINUX_COMPAT_MASK, only["differs"]))
        elif "mask" in only:
            mask, equals = only["mask"], only["equals"]
            for bit in (1 << n for n in range(32) if mask >> n & 1):
                _rule(program, sc, action, call, sc.Arg(index, sc.MASKED_EQ, bit, 0 if equals & bit else bit))
        else:
            _rule(program, sc, action, call, sc.Arg(index, sc.NE, only["equals"]))
        return
    allowed = {c["equals"] for c in conditions}
    for value in range(max(allowed) + 1):
        if value not in allowed:
            _rule(program, sc, action, call, sc.Arg(index, sc.EQ, value))
    _rule(program, sc, action, call, sc.Arg(index, sc.GT, max(allowed)))
