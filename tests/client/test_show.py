"""What people see of a result: nothing of the code's reaches a page or a terminal but what is meant to."""

from __future__ import annotations

import base64
import html
import io
import re
from html.parser import HTMLParser

import pytest

import onehop
from onehop.client import terminal
from onehop.client.show import POLICY

PNG = b"\x89PNG\r\n\x1a\n" + bytes(9000)
EVIL = "</pre><script>alert(1)</script>\x1b]0;forged\x07\x9b"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]


def result(*data: dict[str, str], **more: object) -> onehop.Result:
    return onehop.Result("exe_1", "ok", results=[onehop.Output(one) for one in data], **more)  # type: ignore[arg-type]


def page(shown: onehop.Result | onehop.Output) -> str:
    return shown._repr_mimebundle_()["text/html"]


def test_text_is_escaped_everywhere() -> None:
    shown = result(
        {"text/plain": EVIL},
        {"application/x": EVIL, EVIL: "x"},
        stdout=EVIL,
        stderr=EVIL,
        error=onehop.ErrorInfo(EVIL, EVIL, ""),
        reason=EVIL,
        files=[onehop.File(EVIL, 3)],
    )
    assert set(Tags(page(shown)).names()) == {"pre"}
    assert "alert" in page(shown)
    assert "\x1b" not in page(shown)
    for text in (repr(shown), str(shown), shown._repr_mimebundle_()["text/plain"]):
        assert "\x1b]" not in text
        assert "\x07" not in text
        assert "\x9b" not in text


def test_html_of_the_code_is_shown_in_a_frame_without_rights() -> None:
    content = '<b onclick="x">&amp;</b>"><script>alert(1)</script>'
    ((tag, attributes),) = Tags(page(onehop.Output({"text/html": content, "text/plain": "b"}))).tags
    assert (tag, attributes["sandbox"]) == ("iframe", "allow-scripts")
    inside = attributes["srcdoc"]
    assert inside is not None
    assert inside.endswith(content)
    assert inside.startswith(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">')
    assert POLICY.startswith("default-src 'none'")


def test_pictures_stay_in_their_attribute() -> None:
    shown = result(
        {"image/png": base64.b64encode(PNG).decode() + '"><script>'}, {"image/svg+xml": '<svg onload="x"/>'}
    )
    tags = Tags(page(shown)).tags
    assert [tag for tag, _ in tags] == ["img", "img"]
    sources = [str(attributes["src"]) for _, attributes in tags]
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", sources[0])
    assert base64.b64decode(sources[1].removeprefix("data:image/svg+xml;base64,")) == b'<svg onload="x"/>'


def test_the_text_of_a_result() -> None:
    shown = result({"text/plain": "   a\n0  1", "text/html": "<table>"}, stdout="out\n", stderr="err")
    assert repr(shown) == "out\nerr\n   a\n0  1"
    late = onehop.Result("exe_1", "timeout", stdout="a", reason="it took too long")
    assert str(late) == "a\n[timeout: it took too long]"
    failed = onehop.Result("exe_1", "error", error=onehop.ErrorInfo("E", "v", "Traceback\nE: v"))
    assert str(failed) == "Traceback\nE: v"
    colours = onehop.Result("exe_1", "ok", stdout="\x1b[31mred\x1b[0m")
    assert str(colours) == "\x1b[31mred\x1b[0m"
    assert html.unescape(page(colours)).count("\x1b") == 0
    assert "[files: a (2 bytes)]" in str(onehop.Result("exe_1", "ok", files=[onehop.File("a", 2)]))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "how"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm"}, "iterm2"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, ""),
        ({"TERM": "xterm-256color"}, ""),
    ],
)
def test_which_terminals_show_pictures(environ: dict[str, str], how: str) -> None:
    assert terminal.protocol(Terminal(), environ) == how
    assert terminal.protocol(io.StringIO(), environ) == ""


def test_a_picture_on_kitty_and_iterm2() -> None:
    data = {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}
    shown = terminal.picture(data, "kitty")
    pieces = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", shown)
    assert "".join(f"\x1b_G{keys};{content}\x1b\\" for keys, content in pieces) == shown
    assert pieces[0][0] == "a=T,f=100,q=2,m=1"
    assert {keys for keys, _ in pieces[1:-1]} == {"m=1"}
    assert pieces[-1][0] == "m=0"
    assert all(len(content) <= 4096 for _, content in pieces)
    assert base64.b64decode("".join(content for _, content in pieces)) == PNG
    found = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+):([A-Za-z0-9+/=]*)\a", terminal.picture(data, "iterm2")
    )
    assert found is not None
    assert (int(found[1]), base64.b64decode(found[2])) == (len(PNG), PNG)


@pytest.mark.parametrize("how", ["kitty", "iterm2"])
def test_what_is_no_picture_cannot_end_the_sequence(how: str) -> None:
    forged = base64.b64encode(PNG).decode() + "\x1b\\\x1b]0;forged\x07"
    assert "\x1b]0;" not in terminal.picture({"image/png": forged}, how)
    assert terminal.picture({"image/png": base64.b64encode(b"no picture").decode()}, how) == ""
    assert terminal.picture({"image/png": "%%%"}, how) == ""
    assert terminal.picture({"image/png": base64.b64encode(PNG).decode()}, "") == ""


def test_a_terminal_that_can_shows_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = result({"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"})
    assert repr(shown) == "<Figure>"
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert repr(shown).startswith("\x1b_G")
    assert shown._repr_mimebundle_()["text/plain"] == "<Figure>"
