# The image: one static program and a folder for its state, nothing else. docs/operations.md,
# "In a container", says how it is run. Any builder takes this file:
#
#   docker build -t plimsoll .
#   buildah build -t plimsoll .
#
# `scripts/image` builds it without a daemon and without a registry; `make test-interop` tests that.

# The image that builds: Debian with a Rust toolchain. Pass another where there is no registry.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# SQLite and ring are C: they are compiled against musl too, and so nothing is linked at run time.
ENV TARGET_CC=musl-gcc
RUN command -v musl-gcc || { apt-get update && apt-get install -y --no-install-recommends musl-tools; }
RUN target="$(uname -m)-unknown-linux-musl" && \
    if ! [ -d "$(rustc --print target-libdir --target "$target")" ]; then rustup target add "$target"; fi

# The crates it depends on, in a layer that lasts until they change: built with stand-ins for our
# own two packages, whose place the real sources take below.
COPY Cargo.toml Cargo.lock ./
COPY core/Cargo.toml core/
RUN mkdir -p src core/src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs core/src/lib.rs && \
    cargo build --release --locked --bin plimsoll --target "$(uname -m)-unknown-linux-musl"

COPY config config
COPY drills drills
COPY core core
COPY src src
# Cargo goes by times: the sources must be newer than what the stand-ins left.
RUN find src core/src -name '*.rs' -exec touch {} + && \
    cargo build --release --locked --bin plimsoll --target "$(uname -m)-unknown-linux-musl" && \
    mkdir -p /image /state && mkdir -m 0700 /state/plimsoll && \
    cp "target/$(uname -m)-unknown-linux-musl/release/plimsoll" /image/plimsoll
COPY LICENSE /image/

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Plimsoll" \
      org.opencontainers.image.description="Watches PostgreSQL connection slots run full, says who holds them, pages once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/plimsoll /image/LICENSE /
# Its parent is copied: the folder that is named in COPY loses its mode, and this one is closed.
COPY --from=build --chown=65532:65532 /state /var/lib

# A number, for there is no /etc/passwd, and because Kubernetes' runAsNonRoot believes only numbers.
USER 65532:65532
# Where alerts, incidents and what is owed are kept. It must outlive the container.
ENV STATE_DIRECTORY=/var/lib/plimsoll
VOLUME ["/var/lib/plimsoll"]
# The default is the loopback address, and in a container that is nobody's. Without this no scrape
# would come in; who may is up to what publishes the port. It shows what may be read and changes nothing.
ENV PLIMSOLL_SERVER__LISTEN=0.0.0.0:7546
EXPOSE 7546
# Ends within 30 s: see `server.shutdown_grace`.
STOPSIGNAL SIGTERM
# No HEALTHCHECK: there is nothing here to ask with, and where an unhealthy container is started
# anew, /healthz would do harm: it is red while pages go from memory, and a restart loses those.
ENTRYPOINT ["/plimsoll"]
CMD ["run"]
