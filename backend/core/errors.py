"""Exception hierarchy.

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
│   ├── SchemaUnknown
│   └── AlreadyRunning
└── Stopping               503  stopping

``code`` is stable and for programs; the message is for users. ``status`` is the HTTP status of the API's response.
"""

from __future__ import annotations

from typing import ClassVar

from flashflow.backend.core.named_tuple import NamedTuple


class FieldError(NamedTuple):
    """One invalid field: ``field`` is a dotted path (``metadata.price``), empty for the whole body."""

    field: str
    message: str


class FlashFlowError(Exception):
    """Base class of all errors that FlashFlow raises intentionally."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"


class ValidationError(FlashFlowError):
    """Invalid input; nothing was changed."""

    code = "validation_error"
    status = 400
    title = "The request is not valid"

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors

    @classmethod
    def of(cls, field: str, message: str) -> ValidationError:
        """Build the error of a single field."""
        return cls(f"{field}: {message}" if field else message, (FieldError(field, message),))


class IdempotencyMismatch(ValidationError):
    """An Idempotency-Key was reused with another body."""

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
    """The user was erased; nothing is stored for them until they are readmitted."""

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
    """An API key reached its limit of concurrent requests or streams."""

    code = "rate_limited"
    status = 429
    title = "Too much at once for one key"


class StorageError(FlashFlowError):
    """The data folder or a file in it cannot be used at present."""

    code = "storage_unavailable"
    status = 503
    title = "The storage cannot be used"


class StorageFull(StorageError):
    """The disk is full. Reads continue; writes resume when there is space."""

    code = "storage_full"
    status = 507
    title = "The disk is full"


class SchemaTooNew(StorageError):
    """The file was written by a newer version of FlashFlow."""


class SchemaUnknown(StorageError):
    """The file has a schema that this version cannot upgrade, or differs from its schema in a table or column."""


class AlreadyRunning(StorageError):
    """Another FlashFlow process uses this data folder."""


class Stopping(FlashFlowError):
    """FlashFlow is shutting down and accepts no writes."""

    code = "stopping"
    status = 503
    title = "FlashFlow is stopping"
