# The HTTP server of `nes2net serve` on CPU: docs/judging.md, "In Docker".
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# Ahead of the package, so that a change of it does not download torch again.
RUN pip install torch --index-url https://download.pytorch.org/whl/cpu

WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY LICENSES LICENSES
COPY model_cards model_cards
COPY src src
RUN pip install '.[serve]'

RUN useradd --create-home nes2net
USER nes2net
WORKDIR /home/nes2net

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]

# What follows the image's name in `docker run` is added, such as `--model /model`.
ENTRYPOINT ["nes2net", "serve", "--host", "0.0.0.0", "--port", "8000"]
