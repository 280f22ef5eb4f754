# metseg: a folder of cases in, a folder of label maps out.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --tag metseg .
#
# torch comes from wherever the base image's pip finds it: the package index carries the CUDA build, so that is the GPU image;
# an index with the CPU build gives the CPU image. TORCH=cpu or TORCH=cuda insists on one.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG RUNTIME_IMAGE=${BASE_IMAGE}
# For the labels. VERSION is pyproject.toml's, or the build stops; REVISION is the commit, without which its label is absent.
ARG VERSION=0.1.0
ARG REVISION

# ---- the virtual environment, without our own code
FROM ${BASE_IMAGE} AS environment
ARG TORCH=auto
ENV PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv /opt/venv
COPY scripts/install-requirements requirements-torch-cpu.txt requirements-torch-cuda.txt ./
RUN ./install-requirements /opt/venv/bin/python "$TORCH"
COPY requirements.txt ./
RUN /opt/venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements.txt

# What only building needs: headers, static libraries, tests, test programs. Of CUDA's packages, what nothing here loads:
# Triton, which torch uses where it is there and which needs a C compiler, sources, and libraries that no other one names.
# Of OpenVINO, all but the CPU: other devices, readers of other formats, converters and their telemetry. Of pydicom, sample
# images.
FROM environment AS pruned
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find . -type f -name '*.a' -delete \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find . -path './cuda/*' -name '*.cpp' -delete \
    && find . -path './nvidia/*' \( -name 'libcusolverMg.so*' -o -name '*.alt.so*' \) -delete \
    && rm -rf openvino/include openvino/tools openvino/libs/cache.json pydicom/data/test_files pydicom/data/charset_files \
    && find openvino/libs \( -name '*_frontend.so*' -o -name '*_plugin.so' ! -name '*_intel_cpu_plugin.so' \) -delete \
    && echo /opt/metseg/app >metseg.pth \
    && /opt/venv/bin/python -m pip uninstall --quiet --yes openvino-telemetry triton pip

# ---- our own code, apart: it changes more often than what it runs on
FROM environment AS code
ARG VERSION
COPY pyproject.toml README.md LICENSE NOTICE ./
RUN grep -qxF "version = \"$VERSION\"" pyproject.toml \
    || { echo "Dockerfile: VERSION is $VERSION; pyproject.toml says $(grep '^version' pyproject.toml)" >&2; exit 1; }
COPY app app
RUN /opt/venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index --target /opt/metseg/app . \
    && rm -rf /opt/metseg/app/bin
COPY scripts/image-entry /opt/metseg/bin/metseg
COPY weights /opt/metseg/weights
RUN chmod -R a+rX,go-w /opt/metseg && chmod a+x /opt/metseg/bin/metseg

# ---- the image
FROM ${RUNTIME_IMAGE} AS metseg
# Nothing in here changes its user: the base's setuid and setgid programs (su, mount, passwd) lose those bits.
RUN find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
COPY --from=pruned /opt/venv /opt/venv
COPY --from=code /opt/metseg/weights /opt/metseg/weights
COPY --from=code /opt/metseg/app /opt/metseg/app
COPY --from=code /opt/metseg/bin/metseg /opt/venv/bin/metseg

# Any uid, read-only root: what libraries want to write goes under /tmp, and a uid without passwd entry gets a name. Where
# /tmp can't be written, the entry point changes them.
# A case that can't be segmented gets a blank map and a loud line, because callers drop a whole batch for one missing file.
ENV HOME=/tmp \
    USER=metseg \
    MPLCONFIGDIR=/tmp/metseg-cache/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/metseg-cache/torchinductor \
    XDG_CACHE_HOME=/tmp/metseg-cache \
    METSEG_ON_ERROR=blank \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

HEALTHCHECK NONE
ENTRYPOINT ["/opt/venv/bin/metseg"]
CMD ["infer", "--data-path", "/input", "--output-path", "/output"]

ARG VERSION
LABEL org.opencontainers.image.title="metseg" \
      org.opencontainers.image.description="Brain-metastasis detection and segmentation on MRI" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

FROM metseg AS metseg-of-revision
ARG REVISION
LABEL org.opencontainers.image.revision="${REVISION}"

# With a REVISION the stage above, without one the one before it.
FROM metseg${REVISION:+-of-revision}
