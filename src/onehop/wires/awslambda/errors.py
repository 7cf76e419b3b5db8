"""Errors as AWS Lambda writes them: a name in a header, the sentence in the body."""

from __future__ import annotations

from onehop import errors
from onehop.api.asgi import Header, encode_json
from onehop.api.mounts import Refusal
from onehop.wires.process import retry_after


class FunctionExistsError(errors.ConflictError):
    type, title = "function-exists", "There is a function of that name"


class ParameterError(errors.InvalidRequestError):
    status, type, title = 400, "invalid-parameter", "The parameter is not valid, or not supported here"


class SignatureError(errors.UnauthorizedError):
    status, type, title = 403, "invalid-signature", "The request's signature does not hold"


NAMES: tuple[tuple[type[errors.ProblemError], int, str], ...] = (
    (SignatureError, 403, "InvalidSignatureException"),
    (errors.UnauthorizedError, 403, "UnrecognizedClientException"),
    (errors.ForbiddenError, 403, "AccessDeniedException"),
    (errors.ForbiddenOriginError, 403, "AccessDeniedException"),
    (errors.InvalidJsonError, 400, "InvalidRequestContentException"),
    (errors.InvalidArchiveError, 400, "InvalidParameterValueException"),
    (errors.InvalidRequestError, 400, "InvalidParameterValueException"),
    (errors.TooLargeError, 413, "RequestTooLargeException"),
    (errors.UnsupportedMediaTypeError, 415, "UnsupportedMediaTypeException"),
    (errors.TooManyError, 429, "TooManyRequestsException"),
    (errors.QuotaExceededError, 400, "CodeStorageExceededException"),
    (FunctionExistsError, 409, "ResourceConflictException"),
    (errors.NotFoundError, 404, "ResourceNotFoundException"),
    (errors.MethodNotAllowedError, 404, "ResourceNotFoundException"),
)
"""The first that fits; everything else is a ServiceException."""


def refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    status, name = error.status if error.status >= 500 else 500, "ServiceException"
    for kind, code, said in NAMES:
        if isinstance(error, kind):
            status, name = code, said
            break
    headers: list[Header] = [
        (b"content-type", b"application/json"),
        (b"x-amzn-errortype", name.encode()),
        (b"x-amzn-requestid", request_id.encode()),
        *retry_after(error),
    ]
    whose = "User" if status < 500 else "Service"
    body = {"Type": whose, "Code": name, "Message": error.detail, "message": error.detail}
    return Refusal(status, encode_json(body), tuple(headers))
