# rlhf in a container. The workspace is a volume; the process is no root and needs no other folder.
#
#   docker build -t rlhf .                                               for a CPU
#   docker build -t rlhf:cuda --build-arg ACCELERATOR=cuda .             for NVIDIA GPUs, with 4-bit bases
#   docker run -p 127.0.0.1:8000:8000 -v rlhf:/workspace rlhf            rlhf serve
#
# TORCH_INDEX: the package index to take torch from. Without one it comes from pip's own, whose build for Linux may hold CUDA also
# where ACCELERATOR is cpu: the image is larger then, and runs the same. docs/operating.md has the rest.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG ACCELERATOR=cpu
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv /opt/rlhf
COPY LICENSE README.md pyproject.toml requirements.lock ./
# Packages first, with nothing of ours but its name: a change of the code doesn't fetch them again.
RUN mkdir rlhf && touch rlhf/__init__.py \
 && case "$ACCELERATOR" in \
      cpu) extras=postgres,s3 ;; \
      cuda) extras=postgres,s3,qlora ;; \
      *) echo "ACCELERATOR is '$ACCELERATOR', wanted cpu or cuda" >&2; exit 1 ;; \
    esac \
 && if [ -n "$TORCH_INDEX" ]; then \
      /opt/rlhf/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"; \
    fi \
 && /opt/rlhf/bin/pip install --no-cache-dir --constraint requirements.lock ".[$extras]"
COPY rlhf rlhf
RUN /opt/rlhf/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home rlhf && install -d -o rlhf -g rlhf -m 700 /workspace
COPY --from=build /opt/rlhf /opt/rlhf
COPY configs /opt/rlhf/configs
# HEALTH_PORT: where the container's server listens; 8765 for `rlhf web`.
ENV PATH=/opt/rlhf/bin:$PATH \
    RLHF_WORKSPACE=/workspace \
    HEALTH_PORT=8000 \
    PYTHONUNBUFFERED=1
USER rlhf
WORKDIR /workspace
VOLUME /workspace
EXPOSE 8000 8765
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as ask; ask.urlopen('http://127.0.0.1:' + os.environ['HEALTH_PORT'] + '/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["rlhf"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
