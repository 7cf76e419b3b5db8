"""What E2B's clients do, one function per feature: `python -m tests.wires.e2b.flows NAME`, against E2B_API_URL.

Run as programs of their own, so that the same lines drive each version of the packages.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from e2b import CommandExitException, FileType, NotFoundException, SandboxException, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox


def lifecycle() -> None:
    with Sandbox.create(metadata={"user": "ada", "a b": "c&d"}, timeout=200, envs={"REGION": "north"}) as box:
        assert box.is_running()
        info = box.get_info()
        assert info.sandbox_id == box.sandbox_id
        assert info.metadata == {"user": "ada", "a b": "c&d"}
        assert info.template_id == "code-interpreter-v1"
        assert 190 < (info.end_at - info.started_at).total_seconds() < 210
        assert box.run_code("import os; os.environ['REGION']").text == "'north'"
        assert box.run_code("os.environ['REGION']", envs={"REGION": "south"}).text == "'south'"
        assert box.run_code("os.environ['REGION']").text == "'north'"
        box.set_timeout(400)
        left = (box.get_info().end_at - info.started_at).total_seconds()
        assert 390 < left < 420, left
        again = Sandbox.connect(box.sandbox_id, timeout=30)
        assert again.run_code("os.environ['REGION']").text == "'north'"
        assert (again.get_info().end_at - info.started_at).total_seconds() > 390, "connecting never shortens"
        with Sandbox.create(metadata={"user": "bob"}) as other:
            found = Sandbox.list(query=_query({"user": "ada", "a b": "c&d"})).next_items()
            assert [one.sandbox_id for one in found] == [box.sandbox_id]
            pages = Sandbox.list(limit=1)
            seen = []
            while pages.has_next:
                page = pages.next_items()
                assert len(page) <= 1
                seen += [one.sandbox_id for one in page]
            assert {box.sandbox_id, other.sandbox_id} <= set(seen)
            assert len(seen) == len(set(seen))
        metrics = box.get_metrics()
        assert len(metrics) == 1
        one = metrics[0]
        assert 0 < one.mem_used < one.mem_total
        assert 0 <= one.disk_used < one.disk_total
        assert one.cpu_count > 0
        assert Sandbox.kill(box.sandbox_id)
        assert not Sandbox.kill(box.sandbox_id)
        assert not box.is_running()
        calls: list[Callable[[], Any]] = [
            lambda: box.run_code("1"),
            lambda: box.files.read("a"),
            lambda: box.commands.run("true"),
        ]
        for gone in calls:
            with pytest.raises((SandboxException, TimeoutException)) as told:
                gone()
            assert "not found" in str(told.value), told.value


def _query(metadata: dict[str, str]) -> Any:
    from e2b import SandboxQuery

    return SandboxQuery(metadata=metadata)


def run_code() -> None:
    with Sandbox.create() as box:
        err: list[str] = []
        results: list[Any] = []
        heard: list[tuple[str, int]] = []
        done = box.run_code(
            "import sys, time\nfor n in range(3):\n    print(n, flush=True); time.sleep(0.05)\n"
            "print('no', file=sys.stderr)\nx = 6\nx * 7",
            on_stdout=lambda message: heard.append((message.line, message.timestamp)),
            on_stderr=lambda message: err.append(message.line),
            on_result=results.append,
        )
        assert "".join(text for text, _ in heard) == "".join(done.logs.stdout) == "0\n1\n2\n"
        assert len(heard) >= 2, "they came one after the other"
        assert [stamp for _, stamp in heard] == sorted(stamp for _, stamp in heard)
        assert err == done.logs.stderr == ["no\n"]
        assert (done.text, results[0].text, results[0].is_main_result) == ("42", "42", True)
        assert done.error is None
        assert box.run_code("x + 1").text == "7", "it has a state"
        assert box.run_code("").text is None
        failed = box.run_code("def f():\n    return 1 / 0\nf()")
        assert failed.error is not None
        assert (failed.error.name, failed.error.value) == ("ZeroDivisionError", "division by zero")
        assert "f()" in failed.error.traceback
        seen: list[Any] = []
        box.run_code("raise ValueError('no')", on_error=seen.append)
        assert [one.value for one in seen] == ["no"]


def rich_results() -> None:
    with Sandbox.create() as box:
        table = box.run_code("import pandas as pd; pd.DataFrame({'a': [1, 2]})").results[0]
        assert table.html is not None
        assert table.html.startswith("<div>")
        assert "a" in table.text
        shown = box.run_code(
            "from IPython.display import display, HTML, Markdown, JSON, Latex\n"
            "display(HTML('<b>x</b>'), Markdown('*y*'), Latex('$z$'), JSON({'k': [1]}))\n'last'"
        )
        html, markdown, latex, document, last = shown.results
        assert (html.html, markdown.markdown, latex.latex, document.json) == (
            "<b>x</b>",
            "*y*",
            "$z$",
            {"k": [1]},
        )
        assert [one.is_main_result for one in shown.results] == [False] * 4 + [True]
        assert last.text == "'last'"


def charts() -> None:
    with Sandbox.create() as box:
        done = box.run_code(
            "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [4, 5, 7], label='up')\n"
            "plt.title('Growth'); plt.xlabel('year'); plt.show()"
        )
        (figure,) = done.results
        assert figure.png is not None
        assert figure.png.startswith("iVBOR")
        chart: Any = figure.chart
        assert (chart.type.value, chart.title, chart.x_label) == ("line", "Growth", "year")
        assert chart.elements[0].points == [(1, 4), (2, 5), (3, 7)]
        both = box.run_code(
            "f, (a, b) = plt.subplots(1, 2)\na.bar(['x', 'y'], [1, 2]); b.pie([1, 3], labels=['p', 'q'])\nplt.show()"
        ).results[0]
        shown: Any = both.chart
        assert shown.type.value == "superchart"
        assert [one.type.value for one in shown.elements] == ["bar", "pie"]


def contexts() -> None:
    with Sandbox.create() as box:
        box.files.write("deep/a.txt", "x")
        context = box.create_code_context(cwd="/home/user/deep")
        assert (context.language, context.cwd) == ("python", "/home/user/deep")
        box.run_code("y = 1")
        assert (
            box.run_code("import os; 'y' in globals(), os.listdir()", context=context).text
            == "(False, ['a.txt'])"
        )
        box.run_code("z = 2", context=context)
        assert context.id in [one.id for one in box.list_code_contexts()]
        box.restart_code_context(context)
        assert box.run_code("'z' in globals()", context=context).text == "False"
        box.remove_code_context(context)
        assert context.id not in [one.id for one in box.list_code_contexts()]
        with pytest.raises((NotFoundException, SandboxException)) as told:
            box.run_code("1", context=context)
        assert "context" in str(told.value)
        # Cells of one context wait for each other.
        first = threading.Thread(target=lambda: box.run_code("import time; time.sleep(0.5); w = 1"))
        first.start()
        values = []
        while first.is_alive():
            values.append(box.run_code("globals().get('w')").text)
        first.join()
        assert values[-1] in ("1", None)
        assert box.run_code("w").text == "1"


def languages() -> None:
    with Sandbox.create(envs={"A": "b"}) as box:
        assert "".join(box.run_code("echo $A; echo x > f.txt", language="bash").logs.stdout) == "b\n"
        assert box.files.read("f.txt") == "x\n"
        failed = box.run_code("exit 3", language="bash")
        assert failed.error is not None
        assert failed.error.value == "exit status 3"
        context = box.create_code_context(language="bash")
        assert "".join(box.run_code("pwd", context=context).logs.stdout) == "/workspace\n"
        with pytest.raises(SandboxException) as told:
            box.run_code("1", language="r")
        assert "there are python and bash" in str(told.value)


def interrupt() -> None:
    with Sandbox.create() as box:
        box.run_code("n = 0")
        with pytest.raises(TimeoutException):
            box.run_code("import time\nn = 1\nwhile True: time.sleep(0.01)", timeout=0.7)
        began = time.monotonic()
        assert box.run_code("n").text == "1", "the variables are there"
        assert time.monotonic() - began < 10, "its hang-up has stopped the code"


def files() -> None:
    with Sandbox.create() as box:
        info = box.files.write("a.txt", "Grüße")
        assert (info.name, info.path) == ("a.txt", "/home/user/a.txt")
        assert box.files.read("a.txt") == box.files.read("/home/user/a.txt") == "Grüße"
        raw = bytes(range(256)) * 1000
        box.files.write("/home/user/deep/er/raw.bin", raw)
        assert bytes(box.files.read("deep/er/raw.bin", format="bytes")) == raw
        assert b"".join(box.files.read("deep/er/raw.bin", format="stream")) == raw
        assert box.run_code("open('deep/er/raw.bin', 'rb').read() == bytes(range(256)) * 1000").text == "True"
        entries: Any = [{"path": "x.txt", "data": "1"}, {"path": "deep/y.txt", "data": b"2"}]
        assert [one.path for one in box.files.write_files(entries)] == [
            "/home/user/x.txt",
            "/home/user/deep/y.txt",
        ]
        listed = box.files.list("/home/user")
        assert [(one.name, one.type) for one in listed] == [
            ("a.txt", FileType.FILE), ("deep", FileType.DIR), ("x.txt", FileType.FILE),
        ]  # fmt: skip
        assert len(box.files.list(".", depth=3)) == 6
        one = box.files.get_info("a.txt")
        assert (one.size, one.permissions, one.path) == (7, "-rw-r--r--", "/home/user/a.txt")
        assert one.modified_time.timestamp() > 1_700_000_000
        box.run_code("import os; os.symlink('a.txt', 'link')")
        link = box.files.get_info("link")
        assert link.symlink_target == "a.txt"
        moved = box.files.rename("a.txt", "new/b.txt")
        assert (moved.path, box.files.exists("a.txt"), box.files.exists("new/b.txt")) == (
            "/home/user/new/b.txt", False, True,
        )  # fmt: skip
        assert box.files.make_dir("made/deep")
        assert not box.files.make_dir("made/deep")
        box.files.remove("made")
        assert not box.files.exists("made")
        absent: list[Callable[[], Any]] = [
            lambda: box.files.read("none"),
            lambda: box.files.list("none"),
            lambda: box.files.remove("none"),
        ]
        for missing in absent:
            with pytest.raises(NotFoundException) as told:
                missing()
            assert "no" in str(told.value), repr(told.value)
        with pytest.raises(SandboxException) as outside:
            box.files.read("/etc/passwd")
        assert "is not in /home/user" in str(outside.value)
        assert box.files.exists("/etc/passwd")
        odd = "a 'b' $(c) \n d"
        box.files.write(odd, "odd")
        assert box.files.read(odd) == "odd"
        assert odd in [one.name for one in box.files.list("~")]


def signed() -> None:
    with Sandbox.create() as box:
        box.files.write("a b.txt", "secret")
        url = box.download_url("a b.txt", use_signature_expiration=60)
        assert urllib.request.urlopen(url, timeout=10).read() == b"secret"
        assert urllib.request.urlopen(box.download_url("/home/user/a b.txt"), timeout=10).read() == b"secret"
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="n.txt"\r\n\r\nnew\r\n--x--\r\n'
        upload = urllib.request.Request(
            box.upload_url("up.txt"), form, {"content-type": "multipart/form-data; boundary=x"}
        )
        assert urllib.request.urlopen(upload, timeout=10).status == 200
        assert box.files.read("up.txt") == "new"
        for wrong in (
            url.replace("a%20b.txt", "up.txt"), url.replace("signature=v1_", "signature=v1_x"),
            url.replace("signature_expiration=", "signature_expiration=9"),
            box.download_url("up.txt", use_signature_expiration=-1), box.upload_url("up.txt"),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError) as told:
                urllib.request.urlopen(wrong, timeout=10)
            assert told.value.code == 401, (wrong, told.value.code)


def commands() -> None:
    with Sandbox.create(envs={"A": "b"}) as box:
        out: list[str] = []
        done = box.commands.run("echo $A $B; pwd; echo no >&2", envs={"B": "c"}, on_stdout=out.append)
        assert (done.stdout, done.stderr, done.exit_code) == ("b c\n/workspace\n", "no\n", 0)
        assert "".join(out) == done.stdout
        assert box.commands.run("pwd", cwd="/home/user").stdout == "/workspace\n"
        with pytest.raises(CommandExitException) as told:
            box.commands.run("echo x; exit 7")
        assert (told.value.exit_code, told.value.stdout) == (7, "x\n")
        cat = box.commands.run("cat", background=True, stdin=True)
        listed = {one.pid: one for one in box.commands.list()}
        assert listed[cat.pid].args[-1] == "cat"
        box.commands.send_stdin(cat.pid, "one\n")
        if hasattr(box.commands, "close_stdin"):
            box.commands.close_stdin(cat.pid)
            assert cat.wait().stdout == "one\n"
        else:
            assert cat.kill()
        if hasattr(box.commands, "stream_input"):
            several = box.commands.run("head -n 2", background=True, stdin=True)
            box.commands.stream_input(several.pid, ["a\n", b"b\n"])
            assert several.wait().stdout == "a\nb\n"
        sleeper = box.commands.run("sleep 100", background=True)
        assert box.commands.kill(sleeper.pid)
        with pytest.raises(CommandExitException) as told:
            sleeper.wait()
        assert told.value.exit_code == -1
        assert not box.commands.kill(sleeper.pid)
        began = time.monotonic()
        with pytest.raises(TimeoutException):
            box.commands.run("sleep 100", timeout=1)
        assert time.monotonic() - began < 20
        writer = box.commands.run("read x; for n in 1 2 3; do echo $n; done", background=True, stdin=True)
        writer.disconnect()
        again = box.commands.connect(writer.pid)
        box.commands.send_stdin(writer.pid, "\n")
        assert again.wait().stdout == "1\n2\n3\n"


def async_client() -> None:
    async def flow() -> None:
        box = await AsyncSandbox.create()
        try:
            done = await asyncio.gather(*(box.commands.run(f"sleep 0.1; echo {n}") for n in range(5)))
            assert [one.stdout for one in done] == [f"{n}\n" for n in range(5)]
            assert (await box.run_code("1 + 1")).text == "2"
            await box.files.write("a.txt", "x")
            assert await box.files.read("a.txt") == "x"
            assert [one.name for one in await box.files.list("/home/user")] == ["a.txt"]
        finally:
            await box.kill()

    asyncio.run(flow())


def unsupported() -> None:
    """Each says by its own words what there is not."""
    with Sandbox.create() as box:
        cases: list[tuple[str, Any]] = [
            ("watching", lambda: box.files.watch_dir("/home/user")),
            ("terminals", lambda: box.pty.create(size=_size())),
            ("no network", lambda: Sandbox.create(network={"deny_out": ["10.0.0.0/8"]})),
            ("at most", lambda: Sandbox.create(timeout=10**9)),
            ("there is no environment", lambda: Sandbox.create(template="mine")),
        ]
        for name in ("pause", "beta_pause"):
            if hasattr(box, name):
                cases.append(("no pause", getattr(box, name)))
        if hasattr(box, "fork"):
            cases.append(("no fork", box.fork))
        if hasattr(box, "create_snapshot"):
            cases.append(("no snapshots", box.create_snapshot))
        for words, attempt in cases:
            with pytest.raises(Exception) as told:
                attempt()
            assert words in str(told.value), (words, repr(told.value))


def _size() -> Any:
    from e2b import PtySize

    return PtySize(rows=24, cols=80)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    sys.stdout.flush()
    # The client's HTTP library may abort while Python is being torn down (pyqwest 0.12, PyGILState_Release).
    os._exit(0)
