# syntax=docker/dockerfile:1
# A static program in an empty image: no shell, no libc, no package to be patched. Built for the machine that builds it;
# for both: docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true -t YOUR-REGISTRY/daemonset-warden:0.1.0 --push .
#
# glibc linked in rather than musl: musl's allocator costs an extender that is asked with every pod, and name resolution is
# no loss, because in a pod the apiserver is an address (KUBERNETES_SERVICE_HOST).
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo looks for every target that Cargo.toml names, although only the program is built.
COPY tests tests
COPY benches benches
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" cargo build --release --locked --bin daemonset-warden --target "$target" \
    && cp "target/$target/release/daemonset-warden" /daemonset-warden

FROM scratch
COPY --from=build /daemonset-warden /daemonset-warden
# As in the chart; a number, so that runAsNonRoot can be verified.
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/daemonset-warden"]
CMD ["serve"]
