# Two images: `--target cpu` (miniature profiles) and `--target gpu` (full size). `make image` builds
# them and hands in the base image by digest, the commit and the date.
#
# The base is a slim Python 3.11, because the locks hold the hashes of its wheels. There is no
# nvidia/cuda base, whose tags get deleted: torch's wheels carry the CUDA runtime. There is no -devel
# stage either, because nothing is compiled: every locked package is a wheel but deepspeed, which is
# built as pure Python (its CUDA ops are optional; with `torch_adam: true` none is asked for).
#
# Any base image with Python 3.11 and venv can be given: --build-arg BASE=...
# Behind a proxy or mirror, hand in your own settings; they do not stay in the image:
#   --secret id=pip_conf,src=/etc/pip.conf --secret id=ca_bundle,src=/etc/ssl/certs/ca.crt
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE} AS base
# Nothing reports to anyone. HOME and the caches are writable by whoever runs the image, and the
# user has a name without being in /etc/passwd (getpass, torch's compile cache).
ENV HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    VLLM_NO_USAGE_STATS=1 \
    VLLM_DO_NOT_TRACK=1 \
    WANDB_MODE=disabled \
    OTEL_SDK_DISABLED=true \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/kit/bin:$PATH \
    KIT_ROOT=/experiment \
    HOME=/home/kit \
    USER=kit \
    LOGNAME=kit \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache
RUN mkdir -p /home/kit /cache/huggingface /experiment/runs /experiment/.kit && \
    chmod 1777 /home/kit /cache /cache/huggingface /experiment /experiment/runs /experiment/.kit

# Libraries change seldom, the kit often: two layers of the build, in this order.
FROM base AS cpu-build
WORKDIR /build
COPY requirements/install.py requirements/sizes.json requirements/cpu.txt requirements/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi; \
    export PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1; \
    python3 -m venv /opt/kit && \
    /opt/kit/bin/python requirements/install.py cpu
COPY pyproject.toml README.md LICENSE ./
COPY kit kit
ARG SOURCE_DATE_EPOCH=0
# Compiled once for all users; by hash, so that the files do not depend on when they were made. Some
# libraries ship templates that are no Python, which is no reason to fail.
RUN /opt/kit/bin/python -m pip install -qq --no-index --no-deps --no-build-isolation --no-compile . && \
    { /opt/kit/bin/python -m compileall -qq --invalidation-mode unchecked-hash /opt/kit/lib || true; }

FROM base AS gpu-build
WORKDIR /build
COPY requirements/install.py requirements/sizes.json requirements/gpu.txt requirements/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi; \
    export PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1; \
    python3 -m venv /opt/kit && \
    /opt/kit/bin/python requirements/install.py gpu
COPY pyproject.toml README.md LICENSE ./
COPY kit kit
ARG SOURCE_DATE_EPOCH=0
RUN /opt/kit/bin/python -m pip install -qq --no-index --no-deps --no-build-isolation --no-compile . && \
    { /opt/kit/bin/python -m compileall -qq --invalidation-mode unchecked-hash /opt/kit/lib || true; }

FROM base AS experiment
COPY manifests /experiment/manifests
COPY expected_results /experiment/expected_results
WORKDIR /experiment
VOLUME /cache
ARG COMMIT=unknown
ARG VERSION=unknown
# Seen with podman 4.3: its cache compares ENV and LABEL as written and a RUN with its arguments'
# values, so without this line a rebuilt image bore the commit of the first one.
RUN echo "$VERSION at $COMMIT"
ENV KIT_COMMIT=$COMMIT
LABEL org.opencontainers.image.title="safety-repro-kit" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
ENTRYPOINT ["kit"]
CMD ["--help"]

FROM experiment AS cpu
COPY --from=cpu-build /opt/kit /opt/kit
USER 1000:1000

FROM experiment AS gpu
# Triton compiles its launchers when a kernel is first used: a C compiler, no CUDA toolkit. vLLM's
# FlashInfer sampler would need one, so it is off, as it was where the kit was measured.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends gcc libc6-dev && \
    rm -rf /var/lib/apt/lists/* && \
    python3 -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('include'), 'Python.h').stat()"
ENV VLLM_USE_FLASHINFER_SAMPLER=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-build /opt/kit /opt/kit
USER 1000:1000
