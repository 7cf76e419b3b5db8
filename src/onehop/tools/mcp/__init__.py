"""MCP servers as sources of tools, over stdio and over streamable HTTP."""
