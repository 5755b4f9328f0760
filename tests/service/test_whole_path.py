"""From an upload to a certificate, over real HTTP and real processes."""

from service_fakes import model
from service_process import Service


def test_a_model_becomes_a_certificate(service: Service) -> None:
    model_id = service.upload(model(["publish", 8.0], bound=4.0))
    job = service.submit(model_id, wait=20, target={"upper": 5.0})
    assert (job["state"], job["verdict"]) == ("succeeded", "certified"), job
    assert job["progress"]["upper"] == 4.0
    answer = service.client.get(f"/v1/jobs/{job['id']}/certificate")
    certificate = answer.json()
    assert certificate["id"] == job["certificate"]
    assert certificate["claim"]["model"] == model_id
    assert service.client.get(f"/v1/certificates/{job['certificate']}").content == answer.content
