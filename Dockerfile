# syntax=docker/dockerfile:1

# A static binary and nothing else: no shell, no package manager, no root.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# The image has the toolchain that rust-toolchain.toml names, under its own name and without rustfmt and clippy. With
# --target, crt-static does not reach the procedural macros, which must be dynamic. glibc 2.36 resolves names in a
# static binary too.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    export RUSTUP_TOOLCHAIN="$RUST_VERSION" RUSTFLAGS="-C target-feature=+crt-static" && \
    target="$(rustc -vV | sed -n 's/^host: //p')" && \
    cargo build --release --locked --bin cdc --target "$target" && \
    install -D -m 0755 "target/$target/release/cdc" /out/cdc && \
    strip /out/cdc

FROM scratch
LABEL org.opencontainers.image.title="cdc" \
      org.opencontainers.image.description="Keeps lookup tables in step with master tables by logical replication" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# For sslmode=verify-full against servers whose certificates come from a public authority.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/cdc /cdc
# Files with secrets must be readable by this user.
USER 65532:65532
# cdc handles SIGTERM itself: it finishes the batch, tells the source and leaves.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/cdc"]
CMD ["run"]
