# A static program and the public CAs in an empty image: no shell, no libc, no package to patch. The image is for the architecture of
# the build machine. For both: docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true -t YOUR-REGISTRY/daemonset-warden:0.1.0 --push .
#
# glibc is linked in, not musl: musl's allocator is slower, and the scheduler calls the extender for every pod. Name resolution works
# in a static program: since 2.34 glibc reads /etc/hosts and asks DNS without loading a library. tests/image runs the steps of this
# file, and runs the program.
#
# An image is named by its digest too, because a tag can be moved; `just pin-images` writes the newest one of the tag. There is no
# `# syntax=` line, which would name one more image: every BuildKit since 0.8 knows these instructions.
FROM rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo needs the files of every target in Cargo.toml, although only the program is built.
COPY tests tests
COPY benches benches
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" cargo build --release --locked --bin daemonset-warden --target "$target" \
    && cp "target/$target/release/daemonset-warden" /daemonset-warden

FROM scratch
COPY --from=build /daemonset-warden /daemonset-warden
# The public CAs, for a kubeconfig without a CA and for traces over https. In a pod the service account has the CA of its apiserver.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# By default glibc keeps eight heaps for each core, each as large as it ever was, and large blocks in them: under attack that doubles
# the memory (docs/overload.md, "Memory").
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576
# The same user as in the chart; a number, so that the kubelet can verify runAsNonRoot.
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/daemonset-warden"]
CMD ["serve"]
