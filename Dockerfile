# Images of Flightpath: docker build --target operator|flightpath .
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

# Everything else: workers of training, gateways, agents, the ONNX Runtime model server, `serving.fetch_bundle`.
# `operator/` stays out: a folder of this name on the path of a worker would hide a module of the standard library
# if it ever became a package.
FROM python AS flightpath
ARG TORCH_INDEX_FLAG=""
COPY pyproject.toml README.md LICENSE ./
COPY flightpath ./flightpath
COPY workflows ./workflows
COPY tasks ./tasks
COPY serving ./serving
RUN mkdir -p operator/flightpath_operator \
    && touch operator/flightpath_operator/py.typed \
    && pip install --constraint constraints.txt ${TORCH_INDEX_FLAG} ".[s3,gcs,azure]" \
    && rm -rf operator flightpath workflows tasks serving
WORKDIR /tmp
USER 65532:65532
CMD ["flightpath", "--help"]
