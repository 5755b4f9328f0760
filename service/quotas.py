"""Whether a tenant may have one more: refused with the limit's name, and when to ask again."""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from service.limits import DAY_MS, NO_LIMIT, Limits
from service.problems import Problem, problem_of
from service.settings import Settings
from service.store import jobs
from service.store.limits import cpu_ms, limits_of, stored
from verifier.errors import LipcertError
from verifier.estimate import refuse_too_large
from verifier.property import Request
from verifier.radius_json import Question

QUEUE_S, STORAGE_S, WAITER_S = 10, 60, 5  #: until it is worth to ask again


def effective_limits(connection: Connection, settings: Settings, tenant: str) -> Limits:
    """The tenant's limits, and where the service's own are narrower these."""
    limits = limits_of(connection, tenant, settings.limits)
    return replace(
        limits,
        model_bytes=min(limits.model_bytes, settings.max_model_bytes),
        memory_bytes=min(limits.memory_bytes, settings.memory_bytes or NO_LIMIT),
    )


def require_room_in_queue(
    connection: Connection, settings: Settings, tenant: str, limits: Limits
) -> None:
    """Refuse a job that would wait behind too many.

    Raises:
        Problem: queue-full, of the whole service; quota-exceeded, of the tenant.
    """
    if settings.max_queued <= jobs.queue_length(connection):
        raise Problem("queue-full", f"{settings.max_queued} jobs wait already")
    waiting = jobs.queue_length(connection, tenant)
    if limits.queued_jobs <= waiting:
        raise exceeded("queued_jobs", f"{waiting} jobs wait", QUEUE_S)


def require_processor_time(connection: Connection, tenant: str, limits: Limits, now: int) -> None:
    """Refuse a job of a tenant that has used up its day.

    Raises:
        Problem: quota-exceeded.
    """
    used, most = cpu_ms(connection, tenant, now) // 1000, limits.cpu_seconds_per_day
    if most <= used:
        left_s = (day_after(now) - now) // 1000 + 1
        said = f"{used} seconds of {most} were used since midnight UTC"
        raise exceeded("cpu_seconds_per_day", said, left_s)


def require_budget(request: Request | Question, limits: Limits) -> None:
    """Refuse a job that asks for more seconds than any may have.

    Raises:
        Problem: invalid-request: waiting would not help.
    """
    is_radius = isinstance(request, Question)
    seconds = request.seconds if is_radius else request.budget.seconds
    pointer = "/seconds" if is_radius else "/budget/seconds"
    if limits.budget_seconds < seconds:
        raise Problem(
            "invalid-request",
            f"{pointer}: {seconds:g} seconds are more than the {limits.budget_seconds} that the "
            "limit budget_seconds allows",
            fix=f"give at most {limits.budget_seconds} seconds",
            pointer=pointer,
            limit="budget_seconds",
        )


def require_memory(
    request: Request | Question, summary: Mapping[str, object], limits: Limits
) -> None:
    """Refuse what no method can answer in the memory that the tenant has.

    Raises:
        Problem: too-large.
    """
    if isinstance(request, Question):
        return  # answered in batches, whatever their number
    try:
        refuse_too_large(request, summary, limits.memory_bytes)
    except LipcertError as error:
        raise problem_of(error) from error


def require_storage(connection: Connection, settings: Settings, tenant: str, size: int) -> None:
    """Refuse a new model that has no room.

    Raises:
        Problem: queue-full, quota-exceeded.
    """
    limits = limits_of(connection, tenant, settings.limits)
    count, used = stored(connection, tenant)
    if limits.models <= count:
        raise exceeded("models", f"{count} models are stored", STORAGE_S)
    if limits.stored_bytes < used + size:
        said = f"{used} of {limits.stored_bytes} bytes are stored, and this model has {size}"
        raise exceeded("stored_bytes", said, STORAGE_S)
    require_room_in_queue(connection, settings, tenant, limits)


def exceeded(name: str, said: str, retry_s: int) -> Problem:
    """The refusal of what is more than a limit of the tenant allows."""
    return Problem(
        "quota-exceeded",
        f"limit {name}: {said}",
        limit=name,
        headers={"Retry-After": str(retry_s)},
    )


def day_after(now: int) -> int:
    """The next midnight UTC."""
    return (now // DAY_MS + 1) * DAY_MS
