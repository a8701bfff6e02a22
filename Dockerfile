# The server, for CPU and GPU: PyTorch's Linux wheels bring CUDA and run without a GPU too. Builds with and without
# BuildKit. To pin the base: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

# What changes with the pins alone: a compiler, for torch.compile on a CPU (C++) and Triton on a GPU (C), and the
# packages, by hash. Both need Python.h, which the official image has and Debian's own Python keeps in a package.
FROM ${BASE} AS packages
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && (test -e "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
     || apt-get install --yes --no-install-recommends python3-dev) \
 && rm -rf /var/lib/apt/lists/*
COPY requirements/bootstrap.txt requirements/server.txt /requirements/
# Byte code is written now: at run time the root file system is read-only. uv does not stay.
RUN python -m venv /tmp/bootstrap \
 && /tmp/bootstrap/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
      -r /requirements/bootstrap.txt \
 && /tmp/bootstrap/bin/uv venv --quiet /opt/manyview \
 && /tmp/bootstrap/bin/uv pip sync --quiet --no-cache --compile-bytecode --python /opt/manyview/bin/python \
      --require-hashes /requirements/server.txt \
 && rm -rf /tmp/bootstrap

# manyview itself, installed under /app with the packages' interpreter, so that it can be laid over them.
FROM packages AS app
COPY requirements/bootstrap.txt requirements/build.txt /requirements/
RUN python -m venv /tmp/build \
 && /tmp/build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
      -r /requirements/bootstrap.txt -r /requirements/build.txt
COPY pyproject.toml README.md LICENSE /source/
COPY client /source/client
COPY server /source/server
RUN cd /source \
 && PATH=/tmp/build/bin:$PATH VIRTUAL_ENV=/tmp/build uv build --quiet --wheel --no-build-isolation --out-dir /dist \
 && /tmp/build/bin/uv pip install --quiet --no-cache --no-deps --compile-bytecode \
      --python /opt/manyview/bin/python --prefix /app /dist/*.whl

FROM packages
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="manyview" \
      org.opencontainers.image.description="Self-supervised image embeddings as a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# A number that no user of a host has by default; the volume takes over owner and mode of /data when it is made.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin manyview \
 && install --directory --owner=10001 --group=10001 --mode=700 /data
COPY --from=app /app /opt/manyview
# Compiled kernels are kept, and loaded from where execution is allowed, which it is not in /tmp.
ENV PATH=/opt/manyview/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    MANYVIEW_TARGET=127.0.0.1:50051 \
    TORCHINDUCTOR_CACHE_DIR=/data/compiled/inductor \
    TRITON_CACHE_DIR=/data/compiled/triton
USER 10001:10001
VOLUME /data
EXPOSE 50051
STOPSIGNAL SIGTERM
# Needs no token. Where the server has TLS, the client is told of it by MANYVIEW_TLS_CA: see docs/operations.md.
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=3 CMD ["manyview", "health"]
ENTRYPOINT ["manyview-server"]
CMD ["serve", "--listen", "0.0.0.0:50051", "--data", "/data"]
