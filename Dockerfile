# The command as an image: a user without rights, and nothing to write to but /data and /tmp.
#   docker build -t further_source .
#   docker run --rm --read-only --tmpfs /tmp --env-file further.env -v further:/data -v "$PWD/lists:/lists:ro" \
#     further_source load --executions /lists/submitted.csv
FROM python:3.12-slim AS build
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# Of the destinations only PostgreSQL and DuckDB: --build-arg EXTRAS="--extra bigquery" for another.
ARG EXTRAS="--extra postgres"
RUN pip install --no-cache-dir --disable-pip-version-check uv
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --no-install-project $EXTRAS
COPY further_source ./further_source
RUN uv sync --frozen --no-dev --no-editable $EXTRAS
RUN mkdir data

FROM python:3.12-slim
COPY --from=build /app/.venv /app/.venv
COPY --from=build --chown=1000:1000 /app/data /data
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/data DLT_DATA_DIR=/data/dlt
# Where further.duckdb is made, and .dlt/config.toml is looked for
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["further-source"]
CMD ["--help"]
