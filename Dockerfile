# Whimbrel's programs in one image; docker-compose.yml runs each in a container of its own.
#
# Python 3.13, since it is Debian's own and every package of requirements.lock has a wheel for it:
# nothing is compiled, so that one stage is enough. The steps are those of scripts/venv, without the
# virtual environment, for the image is one.
# The digest, for amd64 and arm64 alike, keeps the image from changing unseen; scripts/pin-images renews it.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

# The same number everywhere, so that volumes keep their owner whatever the image's version.
RUN groupadd --gid 10001 whimbrel \
    && useradd --uid 10001 --gid whimbrel --no-create-home --home-dir /data --shell /usr/sbin/nologin whimbrel

WORKDIR /opt/whimbrel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# First what changes seldom: a change of Whimbrel's own code installs nothing anew.
COPY requirements.lock ./
RUN pip install --quiet --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md config.toml Procfile ./
COPY api api
COPY cli cli
COPY collector collector
COPY compactor compactor
COPY telemetry telemetry
COPY worker worker
RUN pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable . \
    && python -m compileall -q api cli collector compactor telemetry worker

# An empty volume takes the owner of the folder that it is mounted on.
RUN mkdir -p /data/archive /data/audit /data/courier /data/redis /data/run /data/tmp \
    && chown -R whimbrel:whimbrel /data && chmod -R go= /data

# Lines of the log appear at once, and nobody writes beside the code.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 WHIMBREL__DATA__DIR=/data
USER 10001:10001
EXPOSE 8000 8001 9999

# Alone, the image runs the whole box with the bundled server. The check is the API's.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"
CMD ["whimbrel", "up"]
