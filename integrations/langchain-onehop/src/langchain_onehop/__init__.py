"""onehop for LangChain: a sandbox backend of deepagents, and a tool that runs Python."""

from langchain_onehop.sandbox import OnehopSandbox
from langchain_onehop.tool import OnehopTool

__all__ = ["OnehopSandbox", "OnehopTool"]
