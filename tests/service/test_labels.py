"""Labels of models and jobs, and the lists that they filter."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from service_fakes import model
from service_process import Service, problem

from service.store.engine import open_database
from service.store.migrate import MIGRATIONS

BINARY = {"Content-Type": "application/octet-stream"}


def _found(service: Service, path: str, *labels: str) -> set[str]:
    answer = service.client.get(path, params={"label": list(labels)})
    assert answer.status_code == 200, answer.text
    return {item["id"] for item in answer.json()["items"]}


def test_models_are_found_by_their_labels(service: Service) -> None:
    def upload(name: str, *labels: str) -> str:
        answer = service.client.post(
            "/v1/models", content=model(name), headers=BINARY, params={"label": list(labels)}
        )
        return answer.json()["id"]

    one, other = upload("one", "team:a", "stage:x:y"), upload("other", "team:a")
    assert _found(service, "/v1/models", "team:a") == {one, other}
    assert _found(service, "/v1/models", "team:a", "stage:x:y") == {one}
    assert upload("one", "team:b") == upload("one")
    assert service.client.get(f"/v1/models/{one}").json()["labels"] == {"team": "b"}
    assert _found(service, "/v1/models", "team:a") == {other}
    service.client.delete(f"/v1/models/{other}")
    assert _found(service, "/v1/models", "team:a") == set()
    assert service.client.get("/v1/models").json()["items"]


def test_jobs_are_found_by_their_labels(service: Service) -> None:
    model_id = service.upload(model("labelled"))
    made = {
        run: service.submit(model_id, wait=20, labels={"labelled": run, "who": "me"})["id"]
        for run in ("1", "2")
    }
    assert _found(service, "/v1/jobs", "labelled:1") == {made["1"]}
    assert _found(service, "/v1/jobs", "who:me", "labelled:2") == {made["2"]}
    assert _found(service, "/v1/jobs", "who:you") == set()


def test_a_label_has_a_name_and_a_value(service: Service) -> None:
    for text in ("alone", ":value", "name\n:value"):
        answer = service.client.get("/v1/jobs", params={"label": text})
        assert problem(answer)["code"] == "invalid-request"
    body = {"model": service.upload(model("labels")), "labels": {"a:b": "c"}}
    assert problem(service.client.post("/v1/jobs", json=body))["code"] == "invalid-request"


def test_jobs_labelled_before_there_was_a_table_are_found(
    own_service: Callable[..., Service],
) -> None:
    """The migration writes the rows of jobs that are there."""
    service = own_service()
    model_id = service.upload(model("old"))
    old = service.submit(model_id, wait=20, labels={"run": "old"})["id"]
    service.stop()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    database = open_database(service.settings.database)
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
        assert "label" not in sa.inspect(connection).get_table_names()
    database.close()
    service.restart()
    assert _found(service, "/v1/jobs", "run:old") == {old}
