# syntax=docker/dockerfile:1
# The binary alone, as nobody, on a root that may be read-only: no shell, no package manager. What it writes lies in the
# volume /var/lib/stakeout; /tmp is for sorts of SQL that do not fit into memory.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake libssl-dev pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY pipeline pipeline
COPY detections detections
COPY schemas schemas
COPY benches benches
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin stakeout \
 && cp target/release/stakeout /stakeout \
 && mkdir -p /rootfs/var/lib/stakeout /rootfs/lib \
 && cp -L "$(ldd /stakeout | awk '/libz\.so/ { print $3 }')" /rootfs/lib/

# glibc, libgcc and OpenSSL 3 of the same Debian release, and nothing to log in with.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=65532:65532 /rootfs/var/lib/stakeout /var/lib/stakeout
COPY --from=build /rootfs/lib/ /usr/lib/
COPY --from=build /stakeout /usr/bin/stakeout
USER 65532:65532
VOLUME /var/lib/stakeout
ENTRYPOINT ["/usr/bin/stakeout"]
CMD ["run", "--data-dir", "/var/lib/stakeout"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/bin/stakeout", "health", "--data-dir", "/var/lib/stakeout"]
