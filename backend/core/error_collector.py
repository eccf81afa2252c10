"""Collect several reasons for one refusal, so that a caller meets all of them at once."""

from __future__ import annotations

from flashflow.backend.core.errors import FieldError, ValidationError


class JointError(FieldError):
    """A reason that depends on ``others`` too: where one of these fields is wrong itself, it may be a false one."""

    others: tuple[str, ...]

    def __new__(cls, field: str, message: str, others: tuple[str, ...]) -> JointError:
        made = super().__new__(cls, field, message)
        made.others = others
        return made


class ErrorCollector:
    """Collects the refusals of several checks (each in a ``with faults:``), to raise them as one with ``done``."""

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
        """Note one more, unless this field, a part of it or one of the ``others`` it depends on is named already."""
        with self:
            raise ValidationError("", (JointError(field, message, others),))

    def done(self) -> None:
        """Raise ValidationError if anything was collected."""
        if self._errors:
            raise self.error()

    def error(self) -> ValidationError:
        """Everything collected as one refusal."""
        return ValidationError(sentence(tuple(self._errors)), tuple(self._errors))


def within(field: str, refusal: ValidationError) -> ValidationError:
    """``refusal``, its fields' paths led by ``field``."""
    errors = tuple(_led(field, error) for error in refusal.errors)
    return ValidationError(sentence(errors), errors)


def _led(by: str, error: FieldError) -> FieldError:
    field = f"{by}.{error.field}".rstrip(".")
    if isinstance(error, JointError):
        return JointError(field, error.message, tuple(f"{by}.{other}" for other in error.others))
    return FieldError(field, error.message)


def _covers(field: str, known: str) -> bool:
    return known == field or known.startswith(f"{field}.") or (known != "" and field.startswith(f"{known}."))


def sentence(errors: tuple[FieldError, ...]) -> str:
    """The first five errors as one text."""
    texts = [f"{e.field}: {e.message}" if e.field else e.message for e in errors[:5]]
    if len(errors) > len(texts):
        texts.append(f"and {len(errors) - len(texts)} more")
    return "; ".join(texts)
