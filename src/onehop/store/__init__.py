"""What outlives a gateway: sessions, executions with their results, events. No HTTP, no sandboxes in here."""

from onehop.store.records import Claim, Finished, KeyRow, SessionRow, StoredExecution, ToolCallRow, UsageRow
from onehop.store.store import Store

__all__ = ["Claim", "Finished", "KeyRow", "SessionRow", "Store", "StoredExecution", "ToolCallRow", "UsageRow"]
