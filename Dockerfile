# The server, by default for the CPU. For an NVIDIA GPU: --build-arg DEVICE=gpu. Builds with and without BuildKit.
# To pin the base: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

# What both images have and what changes with the pins alone: a compiler, for torch.compile on a CPU (C++) and Triton on a
# GPU (C), and the packages except torch's, by hash. Both compilers need Python.h, which the official image has and Debian's
# own Python keeps in a package.
FROM ${BASE} AS packages
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && (test -e "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
     || apt-get install --yes --no-install-recommends python3-dev) \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
COPY requirements/bootstrap.txt requirements/server.txt /requirements/
# Byte code is written now: at run time the root file system is read-only. uv does not stay.
RUN mkdir /pins && cd /pins \
 && awk '/^[^ ]/ {part = /^torch(vision)?==/ ? "torch" : /^(nvidia-|cuda-|triton==)/ ? "cuda" : "common"} \
         {print > part ".txt"}' /requirements/server.txt \
 && python -m venv /tmp/bootstrap \
 && /tmp/bootstrap/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
      -r /requirements/bootstrap.txt \
 && /tmp/bootstrap/bin/uv venv --quiet /opt/manyview \
 && /tmp/bootstrap/bin/uv pip sync --quiet --no-cache --compile-bytecode --python /opt/manyview/bin/python \
      --require-hashes /pins/common.txt \
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

# PyTorch's Linux wheels bring CUDA. The image for the CPU takes torch from an index of CPU builds if TORCH_INDEX has the
# address of one. The pins do not know these builds, so their versions are checked and their hashes are not. Without such
# an index it takes the pinned wheels, by hash, and cuts out what a CPU never uses. Both are tried out before the build ends.
FROM packages AS torch
ARG DEVICE=cpu
ARG TORCH_INDEX=
COPY container /container/
RUN python -m venv /tmp/bootstrap \
 && /tmp/bootstrap/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
      -r /requirements/bootstrap.txt \
 && export PATH=/opt/manyview/bin:/tmp/bootstrap/bin:$PATH VIRTUAL_ENV=/opt/manyview UV_NO_CACHE=1 \
 && case "$DEVICE:$TORCH_INDEX" in \
      gpu:*) uv pip install --quiet --compile-bytecode --no-deps --require-hashes -r /pins/torch.txt -r /pins/cuda.txt ;; \
      cpu:) uv pip install --quiet --compile-bytecode --no-deps --require-hashes -r /pins/torch.txt \
         && python /container/device_code.py \
         && python /container/cuda_stubs.py ;; \
      cpu:*) uv pip install --quiet --compile-bytecode --no-deps --default-index "$TORCH_INDEX" \
               $(sed -n 's/^\(torch[a-z]*==[^ ]*\).*/\1/p' /pins/torch.txt) ;; \
      *) echo "DEVICE must be cpu or gpu, not $DEVICE" >&2; exit 1 ;; \
    esac \
 && rm -rf /tmp/bootstrap \
 && if [ "$DEVICE" = cpu ]; then TORCHINDUCTOR_CACHE_DIR=/tmp/inductor python -B /container/check_torch.py; fi \
 && rm -rf /tmp/*

FROM torch
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
