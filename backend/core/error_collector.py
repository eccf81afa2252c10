"""Collect field errors of several checks, so that one answer names all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flashflow.backend.core.errors import FieldError, ValidationError


class JointError(FieldError):
    """Field error that depends on the fields ``others`` too; it is dropped where one of these is in error itself."""

    others: tuple[str, ...]

    def __new__(cls, field: str, message: str, others: tuple[str, ...]) -> JointError:
        made = super().__new__(cls, field, message)
        made.others = others
        return made


class ErrorCollector:
    """Collector of ValidationErrors: run each check in ``with errors:``, then call ``done`` to raise them as one."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def __enter__(self) -> ErrorCollector:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, ValidationError) or not error.errors:
            return False
        for one in error.errors:
            about = (one.field, *one.others) if isinstance(one, JointError) else (one.field,)
            if not any(_covers(field, known.field) for field in about for known in self._errors):
                self._errors.append(one)
        return True

    def add(self, field: str, message: str, *others: str) -> None:
        """Add an error, unless ``field``, a part of it or one of ``others`` already has one."""
        with self:
            raise ValidationError("", (JointError(field, message, others),))

    def done(self) -> None:
        """Raise ValidationError if there are errors."""
        if self._errors:
            raise self.error()

    def error(self) -> ValidationError:
        """Return all errors as one ValidationError."""
        return ValidationError(sentence(tuple(self._errors)), tuple(self._errors))


def within(field: str, refusal: ValidationError) -> ValidationError:
    """Return ``refusal`` with ``field`` prefixed to the paths of its errors."""
    errors = tuple(_prefixed(field, error) for error in refusal.errors)
    return ValidationError(sentence(errors), errors)


@contextmanager
def inside(field: str) -> Iterator[None]:
    """Raise a ValidationError of the block as one ``within`` the field."""
    try:
        yield
    except ValidationError as refusal:
        raise within(field, refusal) from None


def _prefixed(by: str, error: FieldError) -> FieldError:
    field = f"{by}.{error.field}".rstrip(".")
    if isinstance(error, JointError):
        return JointError(field, error.message, tuple(f"{by}.{other}" for other in error.others))
    return FieldError(field, error.message)


def _covers(field: str, known: str) -> bool:
    return known == field or known.startswith(f"{field}.") or (known != "" and field.startswith(f"{known}."))


def sentence(errors: tuple[FieldError, ...]) -> str:
    """Join the first five errors into one text."""
    texts = [f"{e.field}: {e.message}" if e.field else e.message for e in errors[:5]]
    if len(errors) > len(texts):
        texts.append(f"and {len(errors) - len(texts)} more")
    return "; ".join(texts)
