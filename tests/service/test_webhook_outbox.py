"""The outbox on the real database: written with what it tells of, claimed by one, never stuck."""

import json
from contextlib import suppress
from typing import Any

from webhook_receiver import status
from webhook_stage import START, TENANT, Stage

from service.store import jobs, leases, models, outbox, tries, webhooks
from service.store.jobs import NewJob
from verifier.property import Request
from verifier.request_json import request_json

MODEL = f"sha256:{'a' * 64}"


def test_a_job_is_told_of_in_the_transaction_that_ends_it(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    with stage.database.write() as connection:
        models.add(connection, TENANT, MODEL, 1, 0, 3)
        reading = leases.claim(connection, "reader", 0, 1000, ["inspect"])
        assert reading is not None
        leases.finish_inspection(connection, reading, 0, summary={})
        new = NewJob(tenant=TENANT, model=MODEL, request=request_json(Request()))
        job_id = jobs.insert_job(connection, new, 0, 3)
        mine = leases.claim(connection, "me", 0, 1000, ["verify"])
        assert mine is not None
        leases.report(connection, mine, {"upper": 4.0}, None, 1)
    assert [one.event for one in stage.told(webhook_id)] == ["job.progress", "job.started"]
    with suppress(KeyboardInterrupt), stage.database.write() as connection:
        leases.finish(connection, mine, "succeeded", 2, progress={"upper": 3.0})
        raise KeyboardInterrupt
    assert len(stage.told(webhook_id)) == 2
    with stage.database.write() as connection:
        leases.finish(connection, mine, "succeeded", 2, progress={"upper": 3.0})
    # How far it was is not told any more, once it has ended.
    assert [one.event for one in stage.told(webhook_id)] == ["job.finished", "job.started"]
    stage.turn(2)
    assert [json.loads(one.body)["data"] for one in stage.receiver.messages][1] == {
        "job": job_id,
        "kind": "verify",
        "model": MODEL,
        "state": "succeeded",
        "verdict": None,
        "bound": 3.0,
        "certificate": None,
        "error": None,
        "links": {"job": f"/v1/jobs/{job_id}"},
    }


def test_a_job_that_names_a_webhook_is_told_to_it(stage: Stage) -> None:
    named, other = stage.hook(jobs="named")[0], stage.hook(jobs="named")[0]
    with stage.database.write() as connection:
        for webhook in ((named,), ()):
            new = NewJob(
                tenant=TENANT, model=MODEL, request=request_json(Request()), webhook=webhook
            )
            job_id = jobs.insert_job(connection, new, 0, 3)
            assert leases.cancel(connection, TENANT, job_id, 1) is not None
    assert [one.event for one in stage.told(named)] == ["job.finished"]
    assert stage.told(other) == []


def test_progress_is_told_now_and_then_and_once(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.receiver.answer = status(500)
    counts: list[int] = []
    for after_ms in (0, 1, outbox.PROGRESS_MS):
        stage.now = START + after_ms
        counts.append(stage.put("job.progress"))
        stage.turn()
    assert counts == [1, 0, 1]
    assert [(one.state, one.tries) for one in stage.told(webhook_id)] == [("failed", 1)] * 2


def test_events_that_are_not_wanted_are_not_told(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    changes: list[dict[str, Any]] = [{"events": ["job.started"]}, {"enabled": False}]
    for values in changes:
        with stage.database.write() as connection:
            webhooks.change(connection, TENANT, webhook_id, values, stage.now)
        assert stage.put() == 0
    assert stage.put(tenant="other") == 0


def test_a_stalled_sender_cannot_undo_its_successors_word(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.put()
    with stage.database.write() as connection:
        (due,) = tries.due(connection, stage.now, [], 9)
        stalled = tries.claim(connection, *due, stage.now, 1000)
        assert tries.claim(connection, *due, stage.now, 1000) is None
        successor = tries.claim(connection, *due, stage.now + 1001, 1000)
        assert stalled is not None
        assert successor is not None
        assert not tries.settle(connection, stalled, "timeout", None, stage.now, 0)
        assert tries.settle(connection, successor, "delivered", 200, stage.now, 0)
        tries.release(connection, stalled)
    assert stage.told(webhook_id)[0].state == "delivered"


def test_a_message_that_ends_its_sender_is_given_up(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.put()
    with stage.database.write() as connection:
        for _ in range(8):
            (due,) = tries.due(connection, stage.now, [], 9)
            assert tries.claim(connection, *due, stage.now, 1000) is not None
            stage.now += 1001
        assert tries.due(connection, stage.now, [], 9) == []
        tries.sweep(connection, stage.now)
    (one,) = stage.told(webhook_id)
    assert (one.state, one.outcome) == ("failed", "interrupted")


def test_a_webhook_hears_one_thing_at_a_time_and_delays_no_other(stage: Stage) -> None:
    first, second = stage.hook()[0], stage.hook()[0]
    foreign = [stage.hook(tenant="many")[0] for _ in range(6)]
    for tenant in (TENANT, TENANT, "many"):
        stage.put(tenant=tenant)
    with stage.database.read() as connection:
        rows = tries.due(connection, stage.now, [], 32)
        assert len(rows) == 2 + tries.TENANT_ROOM
        busy = [(TENANT, first), (TENANT, second), ("many", foreign[0])]
        assert len(tries.due(connection, stage.now, busy, 32)) == tries.TENANT_ROOM - 1
        assert len(tries.due(connection, stage.now, [], 3)) == 3


def test_a_webhook_that_is_removed_meanwhile_ends_its_messages(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.put()
    with stage.database.write() as connection:
        (due,) = tries.due(connection, stage.now, [], 9)
        mine = tries.claim(connection, *due, stage.now, 1000)
        assert mine is not None
        assert webhooks.remove(connection, TENANT, webhook_id)
        assert not tries.settle(connection, mine, "delivered", 200, stage.now, 0)
        assert not webhooks.remove(connection, TENANT, webhook_id)
    assert stage.told(webhook_id) == []


def test_what_ended_long_ago_is_forgotten(stage: Stage) -> None:
    webhook_id, _ = stage.hook()
    stage.put()
    stage.turn()
    stage.now += tries.KEEP_MS
    stage.turn()
    assert len(stage.told(webhook_id)) == 1
    stage.now += 1
    stage.turn()
    assert stage.told(webhook_id) == []
