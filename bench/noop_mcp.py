"""The tool of the row on MCP, over stdio with the mcp library's own server: it does nothing."""

from __future__ import annotations

from mcp.server import MCPServer

server = MCPServer("noop")


@server.tool()
def noop() -> int:
    """One."""
    return 1


if __name__ == "__main__":
    server.run("stdio")
