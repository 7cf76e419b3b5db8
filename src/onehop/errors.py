"""Every way onehop can fail, as one tree; nothing else may define an exception that crosses a module.

OnehopError
├── ProblemError                    a client's request cannot be served; becomes an RFC 9457 problem document
│   ├── InvalidRequestError      422  a field is missing, unknown, of a wrong type or out of range
│   │   ├── InvalidJsonError     400  the body is not JSON or not UTF-8
│   │   ├── InvalidPathError     422  a file path is absolute, climbs out, holds NUL or is too long
│   │   ├── InvalidArchiveError  422  no tar or zip, or it holds what is not unpacked
│   │   ├── UnsupportedParameterError 400  what is asked for cannot be done, or not with this model
│   │   ├── PreviousResponseNotFoundError 400  the response to go on from is not kept, or it is not the caller's
│   │   ├── UnknownEnvironmentError 422  no environment of that name
│   │   └── IdempotencyKeyReusedError 422  the key belongs to another request
│   ├── UnauthorizedError        401  no key, or one that is unknown, expired or revoked
│   ├── ForbiddenOriginError     403  Host or Origin is not allowed here
│   ├── ForbiddenError           403  the key lacks the scope that the route wants
│   ├── NotFoundError            404  no such route
│   │   ├── SessionNotFoundError 404  no such session, or it is not the caller's
│   │   ├── ExecutionNotFoundError 404  no such execution, or it is not the caller's
│   │   ├── ContextNotFoundError 404  no such context in the session
│   │   ├── CommandNotFoundError 404  no such command in the session
│   │   ├── FileNotFoundInWorkspaceError 404  no such file in the workspace
│   │   ├── FunctionNotFoundError 404  no such function, or it is not the caller's
│   │   ├── KeyNotFoundError     404  no such key
│   │   ├── ModelNotFoundError   404  no such model is configured
│   │   ├── UploadNotFoundError  404  no such uploaded file, or it is not the caller's
│   │   └── ResponseNotFoundError 404  no such stored response, or it is not the caller's
│   ├── MethodNotAllowedError    405  the route has other methods
│   ├── ConflictError            409  the resource is in a state that does not allow it
│   │   ├── SessionBusyError     409  another execution runs in this context
│   │   ├── IdempotencyInProgressError 409  the same request is still being carried out
│   │   ├── CallNotPendingError  409  a call of a tool was answered already, has ended, or never was
│   │   └── NotARegularFileError 409  a symlink, directory, device, FIFO, socket or hard link
│   ├── SessionEndedError        410  the session existed and has ended; `reason` says why
│   ├── TooLargeError            413  a body, the code or a file is over its limit
│   ├── UnsupportedMediaTypeError 415  the route wants another Content-Type
│   ├── RangeNotSatisfiableError 416  the file is shorter than the range that was asked for
│   ├── TooManyError             429  a limit on how much at once is reached
│   ├── QuotaExceededError       507  the workspace or the server's disk is full
│   ├── UpstreamError            502  a model's server failed, hung up, or said what nobody understands
│   │   ├── UpstreamTimeoutError 504  it was too slow
│   │   ├── UpstreamAuthenticationError 502  it refused the operator's key
│   │   ├── UpstreamBusyError    429  it takes no more requests now
│   │   └── UpstreamRefusedError 400  it calls the request wrong
│   │       └── ContextOverflowError 400  the conversation is longer than the model can read
│   ├── UnavailableError         503  the engine is starting, stopping or has lost a part
│   └── InternalError            500  a defect in onehop; the details are in the log only
├── JailError                       a wall could not be raised
│   └── WeakIsolationError          a protection that was asked for is missing, with how to get it
├── EnvironmentBuildError           packages of an environment could not be installed
├── EnvironmentInUseError           it cannot be removed while sandboxes use it, or used while it is removed
├── ConfigurationError              a setting has a value that cannot be used
├── ProtocolError                   a frame breaks the protocol
├── EngineError                     the supervisor could not be started or was lost
├── CallFailedError                 a tool gave no value; `kind` says why, as the code that called it is told
├── UnreachableError                no server answers, or the connection to it broke (raised by the SDK)
└── ExecutionFailedError            code ended otherwise than `ok`, and the caller asked for an exception (SDK)
"""

from __future__ import annotations

from typing import Any


class OnehopError(Exception):
    """Base of all errors that onehop raises on purpose."""


class ProblemError(OnehopError):
    """A request cannot be served.

    Args:
        detail: one sentence that says what was wrong with this request and what to do.
        retry_after_s: seconds after which the same request has a chance (None: as its class says).
        extra: further members of the problem document (RFC 9457, section 3.2).
    """

    status = 500
    type = "internal"
    title = "Internal error"
    retry_after_s: float | None = None
    """Seconds for the header Retry-After; None where trying again does not help."""

    def __init__(self, detail: str, *, retry_after_s: float | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    def document(self) -> dict[str, Any]:
        """The RFC 9457 problem document."""
        return {
            "type": f"urn:onehop:problem:{self.type}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }


class InvalidRequestError(ProblemError):
    status, type, title = 422, "invalid-request", "The request is not valid"


class InvalidJsonError(InvalidRequestError):
    status, type, title = 400, "invalid-json", "The body is not valid JSON"


class InvalidPathError(InvalidRequestError):
    type, title = "invalid-path", "The file path is not valid"


class InvalidArchiveError(InvalidRequestError):
    type, title = "invalid-archive", "The archive cannot be unpacked"


class UnsupportedParameterError(InvalidRequestError):
    """What is asked for cannot be done, or not with this model; `field` names it."""

    status, type, title = 400, "unsupported-parameter", "The parameter is not supported"


class PreviousResponseNotFoundError(InvalidRequestError):
    """Only of OpenAI's protocol, with its status."""

    status, type, title = 400, "previous-response-not-found", "There is no such response to go on from"


class UnknownEnvironmentError(InvalidRequestError):
    type, title = "unknown-environment", "There is no such environment"


class UnauthorizedError(ProblemError):
    status, type, title = 401, "unauthorized", "A valid key is needed"


class IdempotencyKeyReusedError(InvalidRequestError):
    type, title = "idempotency-key-reused", "The idempotency key belongs to another request"


class ForbiddenOriginError(ProblemError):
    status, type, title = 403, "forbidden-origin", "This Host or Origin is not allowed"


class ForbiddenError(ProblemError):
    status, type, title = 403, "forbidden", "The key does not allow this"


class NotFoundError(ProblemError):
    status, type, title = 404, "not-found", "There is nothing here"


class SessionNotFoundError(NotFoundError):
    type, title = "session-not-found", "There is no such session"


class ExecutionNotFoundError(NotFoundError):
    type, title = "execution-not-found", "There is no such execution"


class ContextNotFoundError(NotFoundError):
    type, title = "context-not-found", "There is no such context"


class CommandNotFoundError(NotFoundError):
    type, title = "command-not-found", "There is no such command"


class FileNotFoundInWorkspaceError(NotFoundError):
    type, title = "file-not-found", "There is no such file in the workspace"


class FunctionNotFoundError(NotFoundError):
    type, title = "function-not-found", "There is no such function"


class KeyNotFoundError(NotFoundError):
    type, title = "key-not-found", "There is no such key"


class ModelNotFoundError(NotFoundError):
    type, title = "model-not-found", "There is no such model"


class UploadNotFoundError(NotFoundError):
    type, title = "upload-not-found", "There is no such uploaded file"


class ResponseNotFoundError(NotFoundError):
    type, title = "response-not-found", "There is no such response"


class MethodNotAllowedError(ProblemError):
    status, type, title = 405, "method-not-allowed", "The method is not allowed here"


class ConflictError(ProblemError):
    status, type, title = 409, "conflict", "The resource is in another state"


class SessionBusyError(ConflictError):
    type, title = "session-busy", "Another execution is running in this session"


class IdempotencyInProgressError(ConflictError):
    type, title = "idempotency-in-progress", "The same request is still being carried out"


class CallNotPendingError(ConflictError):
    type, title = "call-not-pending", "The call does not wait for a result"


class NotARegularFileError(ConflictError):
    type, title = "not-a-regular-file", "Only regular files can be transferred"


class SessionEndedError(ProblemError):
    status, type, title = 410, "session-ended", "The session has ended"


class TooLargeError(ProblemError):
    status, type, title = 413, "too-large", "The request is too large"


class UnsupportedMediaTypeError(ProblemError):
    status, type, title = 415, "unsupported-media-type", "The Content-Type is not supported here"


class RangeNotSatisfiableError(ProblemError):
    status, type, title = 416, "range-not-satisfiable", "The file has no such range"


class TooManyError(ProblemError):
    status, type, title = 429, "too-many", "A limit is reached"
    retry_after_s = 1.0


class QuotaExceededError(ProblemError):
    status, type, title = 507, "quota-exceeded", "There is no room left"


class UpstreamError(ProblemError):
    """A model's server did not do its part. The message is for the client; it holds no key and no address."""

    status, type, title = 502, "upstream-error", "The model's server failed"


class UpstreamTimeoutError(UpstreamError):
    status, type, title = 504, "upstream-timeout", "The model's server was too slow"


class UpstreamAuthenticationError(UpstreamError):
    """The server's own key was refused: who runs it has to act, not the client."""

    type, title = "upstream-authentication", "The model's server refused the operator's key"


class UpstreamBusyError(UpstreamError):
    """429 or overload, after all retries and fall-backs. `retry_after_s` as the upstream said."""

    status, type, title = 429, "upstream-busy", "The model's server takes no more requests now"


class UpstreamRefusedError(UpstreamError):
    """The upstream calls the request wrong; the message is its own."""

    status, type, title = 400, "upstream-refused", "The model's server refused the request"


class ContextOverflowError(UpstreamRefusedError):
    type, title = "context-overflow", "The conversation is longer than the model can read"


class UnavailableError(ProblemError):
    status, type, title = 503, "unavailable", "The engine is not available"
    retry_after_s = 1.0


class InternalError(ProblemError):
    """A defect in onehop. The document names no detail; the log has it under the request id."""


class JailError(OnehopError):
    """A wall could not be raised; nothing of the sandbox is left."""


class WeakIsolationError(JailError):
    """A protection that was asked for is missing; the message says how to get it."""


class EnvironmentBuildError(OnehopError):
    """The packages of an environment could not be installed; nothing was changed."""


class EnvironmentInUseError(OnehopError):
    """An environment cannot be removed while sandboxes use it, nor used while it is being removed."""


class ConfigurationError(OnehopError):
    """A setting has a value that cannot be used; the message names the setting and where it came from."""


class ProtocolError(OnehopError):
    """A frame breaks the protocol: too long, cut off, of an unknown kind or out of order."""


class EngineError(OnehopError):
    """The supervisor could not be started or was lost."""


class CallFailedError(OnehopError):
    """A tool gave no value.

    Args:
        kind: one of those of onehop.protocol.CallError: bad_arguments, failed, unavailable, ...
        message: what was wrong and, where that helps, what to do; the code that called is told this.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class UnreachableError(OnehopError):
    """No server answers, or the connection to it broke.

    Args:
        unsent: the request did not leave, so that it can be repeated.
        known: the server has answered before.
    """

    def __init__(self, text: str, *, unsent: bool = False, known: bool = True) -> None:
        super().__init__(text)
        self.unsent = unsent
        self.known = known


class ExecutionFailedError(OnehopError):
    """An execution ended otherwise than `ok`; `result` is all that is known about it."""

    def __init__(self, text: str, result: Any) -> None:
        super().__init__(text)
        self.result = result


PROBLEMS: tuple[type[ProblemError], ...] = (
    InvalidRequestError,
    InvalidJsonError,
    InvalidPathError,
    InvalidArchiveError,
    UnknownEnvironmentError,
    UnauthorizedError,
    IdempotencyKeyReusedError,
    ForbiddenOriginError,
    ForbiddenError,
    NotFoundError,
    SessionNotFoundError,
    ExecutionNotFoundError,
    ContextNotFoundError,
    CommandNotFoundError,
    FileNotFoundInWorkspaceError,
    FunctionNotFoundError,
    KeyNotFoundError,
    MethodNotAllowedError,
    ConflictError,
    SessionBusyError,
    IdempotencyInProgressError,
    NotARegularFileError,
    CallNotPendingError,
    SessionEndedError,
    TooLargeError,
    UnsupportedMediaTypeError,
    RangeNotSatisfiableError,
    TooManyError,
    QuotaExceededError,
    UnavailableError,
    InternalError,
)
"""Those of the native API, for the error responses in OpenAPI and for clients that map documents to exceptions."""

WIRE_PROBLEMS: tuple[type[ProblemError], ...] = (
    UnsupportedParameterError,
    ModelNotFoundError,
    UploadNotFoundError,
    ResponseNotFoundError,
    PreviousResponseNotFoundError,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamRefusedError,
    ContextOverflowError,
)
"""Those that only other protocols answer with, each in its own shape."""
