"""Everything FlashFlow refuses, as one tree.

FlashFlowError
├── ValidationError        400  validation_error
│   └── IdempotencyMismatch 422  idempotency_mismatch
├── Unauthorized           401  unauthorized
├── Forbidden              403  forbidden
├── NotFound               404  not_found
├── Conflict               409  conflict
├── Erased                 410  erased
├── PayloadTooLarge        413  payload_too_large
├── UnsupportedMediaType   415  unsupported_media_type
├── RateLimited            429  rate_limited
├── StorageError           503  storage_unavailable
│   ├── StorageFull        507  storage_full
│   ├── SchemaTooNew
│   └── AlreadyRunning
└── Stopping               503  stopping

``code`` is stable and meant for programs; the message is for people. ``status`` is how the HTTP API answers it.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One reason a request was refused: ``field`` is a dotted path (``metadata.price``), empty for the whole body."""

    field: str
    message: str


class FlashFlowError(Exception):
    """Base of every error FlashFlow raises on purpose."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"


class ValidationError(FlashFlowError):
    """The input is not what it should be; nothing was changed."""

    code = "validation_error"
    status = 400
    title = "The request is not valid"

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors

    @classmethod
    def of(cls, field: str, message: str) -> ValidationError:
        """A single bad field, said in one sentence."""
        return cls(f"{field}: {message}" if field else message, (FieldError(field, message),))


class IdempotencyMismatch(ValidationError):
    """The Idempotency-Key was used before with another body."""

    code = "idempotency_mismatch"
    status = 422
    title = "This Idempotency-Key belongs to another request"


class Unauthorized(FlashFlowError):
    code = "unauthorized"
    status = 401
    title = "A key is needed"


class Forbidden(FlashFlowError):
    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFound(FlashFlowError):
    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(FlashFlowError):
    code = "conflict"
    status = 409
    title = "In conflict with what is stored"


class Erased(FlashFlowError):
    """The user was erased: nothing is stored of them until they are readmitted."""

    code = "erased"
    status = 410
    title = "This user was erased"


class PayloadTooLarge(FlashFlowError):
    code = "payload_too_large"
    status = 413
    title = "The body is too large"


class UnsupportedMediaType(FlashFlowError):
    code = "unsupported_media_type"
    status = 415
    title = "The body must be JSON"


class RateLimited(FlashFlowError):
    """One key holds as much as one key may; what it holds has to end first."""

    code = "rate_limited"
    status = 429
    title = "Too much at once for one key"


class StorageError(FlashFlowError):
    """The data folder or a file in it cannot be used now."""

    code = "storage_unavailable"
    status = 503
    title = "The storage cannot be used"


class StorageFull(StorageError):
    """No room on the disk. Reads go on; writes resume by themselves when there is room."""

    code = "storage_full"
    status = 507
    title = "The disk is full"


class SchemaTooNew(StorageError):
    """The file was written by a newer FlashFlow."""


class AlreadyRunning(StorageError):
    """Another FlashFlow uses this data folder."""


class Stopping(FlashFlowError):
    """FlashFlow is shutting down and takes no more writes."""

    code = "stopping"
    status = 503
    title = "FlashFlow is stopping"
