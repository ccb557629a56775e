# syntax=docker/dockerfile:1
# A static program and the public CAs in an empty image: no shell, no libc, no package to be patched. Built for the machine that
# builds it; for both: docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true -t YOUR-REGISTRY/daemonset-warden:0.1.0 --push .
#
# glibc linked in rather than musl: musl's allocator costs an extender that is asked with every pod. Names are found all the same:
# since 2.34 it looks into /etc/hosts and asks DNS without loading a library. tests/image does what this file says, and runs it.
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
# For a kubeconfig without a CA, whose apiserver has a public certificate; in a pod the service account brings its own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# As in the chart; a number, so that runAsNonRoot can be verified.
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/daemonset-warden"]
CMD ["serve"]
