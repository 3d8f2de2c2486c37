# One image, two programs: etcdbrctl, which etcd-druid's Pods run by the entry point, and backupagent.
#
#   docker build -t backupagent:0.1.0 .
#   docker build --build-arg BASE=python:3.13-slim@sha256:... .      to build the same image again
#
# The second stage runs nothing, so that it may as well be a base without a shell that has the same Python.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/build.txt requirements/base.txt requirements/
# What builds wheels is pinned by its hash too, hence no build isolation, which would fetch the newest.
RUN python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes --no-deps -r requirements/build.txt
RUN /opt/build/bin/python -m pip wheel --require-hashes --no-deps --no-build-isolation --wheel-dir /opt/wheels \
    -r requirements/base.txt
COPY pyproject.toml README.md LICENSE ./
COPY backupagent backupagent
RUN /opt/build/bin/python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /opt/wheels .
RUN python -m venv --without-pip /opt/backupagent \
    && /opt/build/bin/python -m pip --python /opt/backupagent/bin/python install --no-index --no-deps /opt/wheels/*.whl \
    && /opt/build/bin/python -m pip --python /opt/backupagent/bin/python check
RUN mkdir -p /opt/home/nonroot

FROM ${BASE}
LABEL org.opencontainers.image.title="backupagent" \
      org.opencontainers.image.description="Takes, moves, restores and proves etcd backups" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/backupagent /opt/backupagent
# The peer's directories in Local stores lie below its home.
COPY --from=build --chown=65532:65532 /opt/home/nonroot /home/nonroot
ENV PATH=/opt/backupagent/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/home/nonroot \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /home/nonroot
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/opt/backupagent/bin/etcdbrctl"]
