"""The gateway of the API's tests serves every wire."""

from tests.api.conftest import client, gateway, home, session_id

__all__ = ["client", "gateway", "home", "session_id"]
