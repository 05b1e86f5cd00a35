# Images of Flightpath: docker build --target operator|recovery|flightpath .
# Names only; pin them by digest where your supply chain asks for it.
FROM python:3.11-slim-bookworm AS python
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /opt/flightpath
COPY constraints.txt ./

# The operator ships alone: Kopf, the Kubernetes client and little else.
FROM python AS operator
RUN pip install --constraint constraints.txt kopf kubernetes aiohttp pydantic pydantic-settings prometheus-client
COPY operator/flightpath_operator ./flightpath_operator
RUN python -m compileall -q flightpath_operator
USER 65532:65532
EXPOSE 8080 8090
ENTRYPOINT ["python", "-m", "flightpath_operator"]

# Backups (python -m infra.recovery). The client programs have the database's own major version: what a newer pg_dump
# writes, an older server refuses.
FROM postgres:16-bookworm AS recovery
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
WORKDIR /opt/flightpath
COPY constraints.txt ./
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && pip install --no-cache-dir --constraint constraints.txt \
        sqlalchemy "psycopg[binary]" cryptography fsspec s3fs gcsfs adlfs typer
COPY serving ./serving
COPY infra/__init__.py ./infra/__init__.py
COPY infra/recovery ./infra/recovery
USER 65532:65532
ENTRYPOINT []
CMD ["python", "-m", "infra.recovery", "--help"]

# Everything else: workers of training, gateways, agents, the ONNX Runtime model server, `serving.fetch_bundle`.
# `operator/` stays out: a folder of this name on the path of a worker would hide a module of the standard library
# if it ever became a package.
FROM python AS flightpath
ARG TORCH_INDEX_FLAG=""
COPY pyproject.toml README.md LICENSE ./
COPY flightpath ./flightpath
COPY workflows ./workflows
COPY tasks ./tasks
COPY infra ./infra
COPY serving ./serving
RUN mkdir -p operator/flightpath_operator \
    && touch operator/flightpath_operator/py.typed \
    && pip install --constraint constraints.txt ${TORCH_INDEX_FLAG} ".[s3,gcs,azure,postgres]" \
    && rm -rf operator flightpath workflows tasks infra serving
WORKDIR /tmp
USER 65532:65532
CMD ["flightpath", "--help"]
