"""How an operator says what a service over HTTP wants to see. Holds names of secrets, never a secret."""

from __future__ import annotations

import msgspec


class BasicOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Names of the secrets with the user's name and the password (RFC 7617)."""

    user: str
    password: str


class AuthOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a service wants; every value is the name of a secret.

    Args:
        bearer: sent as `Authorization: Bearer …` (RFC 6750).
        header: header -> secret.
        query: query parameter -> secret.
    """

    bearer: str | None = None
    basic: BasicOptions | None = None
    header: dict[str, str] = {}
    query: dict[str, str] = {}
