# The API: no torch, no onnx, no solver. Build from the root of the repository:
#   docker build -f docker/api.Dockerfile -t lipcert-api .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY verifier verifier
COPY service service
RUN python -m venv /opt/lipcert \
 && /opt/lipcert/bin/pip install --no-cache-dir -c constraints.txt '.[serve,postgres]'

FROM python:3.11-slim
COPY --from=build /opt/lipcert /opt/lipcert
# The folder with its owner: a new volume mounted on it takes both from here.
RUN useradd --uid 10001 --create-home lipcert \
 && install --directory --owner=lipcert --mode=0700 /data
USER 10001
ENV PATH=/opt/lipcert/bin:$PATH \
    LIPCERT_DATA=/data \
    LIPCERT_HOST=0.0.0.0 \
    OMP_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8321
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8321/healthz', timeout=2)"]
# Until the first API key is made, whoever runs the container decides who reaches it: compose.yaml
# publishes the port on 127.0.0.1 only.
CMD ["python", "-m", "service.serve", "--insecure-no-auth"]
