# The image of `machinebot operator`: Python, the packages it needs and this project. Run by tag or digest, never by `latest`.
# For agents that join by the method iam: docker build --build-arg EXTRAS=operator,aws .

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
ARG EXTRAS=operator
WORKDIR /src
COPY constraints.txt ./
# Each file is held against its hash, wheels only: no package runs code of its own here. The list also has the tools of
# development, which go no further than this stage.
RUN pip download --require-hashes --no-deps --only-binary=:all: --requirement constraints.txt --dest /wheels
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
# No index: what is not among the checked files is not installed.
RUN python -m venv --without-pip /opt/machinebot \
    && pip --python /opt/machinebot/bin/python install --no-index --find-links=/wheels ".[$EXTRAS]"

FROM python:3.13-slim-bookworm
ENV PATH=/opt/machinebot/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/machinebot /opt/machinebot
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080 8443
ENTRYPOINT ["machinebot"]
CMD ["operator"]
