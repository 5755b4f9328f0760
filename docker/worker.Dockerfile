# The dispatcher and the children that certify. Build from the root of the repository:
#   docker build -f docker/worker.Dockerfile -t lipcert-worker .
# pip's default index serves torch with CUDA. For the much smaller CPU build, or another CUDA, name
# the folder or index that holds torch's wheels: --build-arg TORCH_WHEELS=...
FROM python:3.11-slim AS build
ARG TORCH_WHEELS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -m venv /opt/lipcert \
 && /opt/lipcert/bin/pip install --no-cache-dir -c constraints.txt \
    ${TORCH_WHEELS:+--find-links "$TORCH_WHEELS"} torch
COPY verifier verifier
COPY service service
RUN /opt/lipcert/bin/pip install --no-cache-dir -c constraints.txt '.[verify,serve,postgres]'

FROM python:3.11-slim
COPY --from=build /opt/lipcert /opt/lipcert
RUN useradd --uid 10001 --create-home lipcert \
 && install --directory --owner=lipcert --mode=0700 /data
USER 10001
ENV PATH=/opt/lipcert/bin:$PATH \
    LIPCERT_DATA=/data \
    OMP_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1
VOLUME /data
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["python", "-c", \
    "from service.dispatcher import main; raise SystemExit(main())", "--is-alive"]
# -c, not -m: children of the forkserver import the main module again if it has a name.
CMD ["python", "-c", "from service.dispatcher import main; raise SystemExit(main())", "--alone"]
