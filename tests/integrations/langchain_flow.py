"""The tool and the backend in LangChain's hands: `python -m tests.integrations.langchain_flow`."""

from __future__ import annotations

from langchain_onehop import OnehopSandbox, OnehopTool

from onehop import Session

with Session() as session:
    tool = OnehopTool(session)
    assert tool.invoke({"code": "x = 20"}) == "(it ran and showed nothing)"
    assert tool.invoke({"code": "print('hi'); x + 1"}) == "hi\n21"
    assert "ZeroDivisionError" in tool.invoke({"code": "1 / 0"})
    call = {
        "type": "tool_call", "id": "c1", "name": "python",
        "args": {"code": "import matplotlib.pyplot as plt; plt.plot([1]); plt.show()"},
    }  # fmt: skip
    message = tool.invoke(call)
    assert [one["type"] for one in message.content] == ["text", "image"]
    assert message.artifact.status == "ok"
    tool.close()
    with OnehopSandbox(session) as backend:
        assert backend.id == session.info().id
        assert backend.execute("echo out; echo err >&2; exit 3").output == "out\nerr\n"
        assert backend.execute("sleep 60", timeout=1).exit_code == 124
        assert (
            backend.upload_files([("relative", b""), ("/etc/x", b""), ("/tmp", b"")])[0].error
            == "invalid_path"
        )
        assert [one.error for one in backend.upload_files([("/etc/x", b""), ("/tmp", b"")])] == [
            "permission_denied", "is_directory",
        ]  # fmt: skip
        assert [one.error for one in backend.download_files(["/none", "/tmp", "x"])] == [
            "file_not_found", "is_directory", "invalid_path",
        ]  # fmt: skip
        assert session.files.list() == [], "nothing is left of transfers"
    assert session.run("x").text == "20", "it was the caller's to close"
print("done")
