# The one entrance to this repository: `just` lists the recipes. `.ci/run` installs their tools and runs `checks`.
# Install it with `cargo install --locked just`; CONTRIBUTING.md has the plain commands.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Every check of a change. The cheap ones come first; the chart comes after the tests, which build Helm.
checks := "fmt-check typos lint test deny docs chart"

# Absolute, because tests run in folders of their own.
target := absolute_path(env("CARGO_TARGET_DIR", "target"))

# Lists the recipes
default:
    @just --list --unsorted

# Formats the code
fmt:
    cargo fmt

# Checks that the code is formatted
fmt-check:
    cargo fmt --check

# Checks the spelling, with the words of _typos.toml (needs typos-cli)
typos:
    typos

# Runs clippy, also without traces; a warning is a fault
lint:
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked --no-default-features --lib --bins -- -D warnings

# Builds the documentation of the crate; a warning is a fault
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Runs every test; the image comes first, because the chart's tests run its program
test: image
    DAEMONSET_WARDEN_IMAGE="{{ target }}/tmp/image/root" cargo test --locked

# Tests the pure functions: seconds
test-lib *args:
    cargo test --locked --lib {{ args }}

# Tests the router and the binary without a cluster: seconds
test-offline *args:
    cargo test --locked --test offline {{ args }}

# Tests on a real control plane, built from Go modules on first use: minutes
test-cluster *args:
    cargo test --locked --test cluster {{ args }}

# Runs the steps of the Dockerfile without a container engine, and tests the result: minutes
image:
    cargo test --locked --test image -- --nocapture

# Writes the newest digest of each image that the Dockerfile and the chart name (needs docker and its registry); review the diff
pin-images:
    #!/usr/bin/env bash
    set -euo pipefail
    for file in Dockerfile charts/daemonset-warden/values.yaml; do
      for image in $(grep -oE '[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}' "$file"); do
        tag="${image%@*}"
        # Of all architectures, not of one.
        digest=$(docker buildx imagetools inspect "$tag" --format '{{{{.Manifest.Digest}}')
        sed -i "s|$image|$tag@$digest|" "$file"
      done
    done
    "{{ just_executable() }}" goldens

# Runs all benchmarks, or one: `just bench --bench load`
bench *args:
    cargo bench --locked {{ args }}

# Writes the golden files, and the pages made from the code; review the diff
goldens:
    UPDATE_GOLDEN=1 cargo test --locked --test offline

# Lints the chart with the Helm that the cluster tests built
chart:
    #!/usr/bin/env bash
    set -euo pipefail
    # The cache folder of tests/cluster/harness/tools.rs.
    cache="${DAEMONSET_WARDEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/daemonset-warden}"
    built=("$cache"/control-plane/*/bin/helm)
    if [ ! -x "${built[-1]}" ]; then
      echo "no helm in $cache/control-plane: the cluster tests build it" >&2
      exit 1
    fi
    "${built[-1]}" lint --strict charts/daemonset-warden

# Checks licenses, duplicates and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check bans licenses sources

# Runs what does not fit into CI: the other minors of Kubernetes, the full sizes, the autoscalers where CLUSTER_AUTOSCALER, KARPENTER
# and KARPENTER_CRDS name them (docs/autoscalers.md), the benchmarks. Needs a machine that does nothing else; hours
verify-all: verify-minors verify-sizes verify-autoscalers
    cargo bench --locked --bench throughput -- rounds=10
    cargo bench --locked --bench throughput -- held-plain held-bind held-nominate held=100 pods=5000 rounds=10
    cargo bench --locked --bench load
    cargo bench --locked --bench scale

# Runs A to E, and from `helm install` to a node that joins, on the other minors of Kubernetes
verify-minors:
    #!/usr/bin/env bash
    set -euo pipefail
    for minor in tests/control-plane/minors/*/; do
      KUBERNETES=$(basename "$minor") cargo test --locked --test cluster -- scenarios:: bind:: bind_rules:: leader_election:: nomination:: real_path:: install_to_join chart::an_apiserver
    done

# Runs the scenarios, the adversary and the real path of a binding at full size
verify-sizes:
    cargo test --locked --release --test cluster scenarios::table::full_size -- --ignored --nocapture
    LIMITS=default DOORS=without,bind SCENARIOS=A,B,C,D,E cargo test --locked --release --test cluster scenarios::table::full_size -- --ignored --nocapture
    NODES=500 cargo test --locked --release --test cluster hostile::full_size -- --ignored --nocapture --test-threads=1
    NODES=100 cargo test --locked --release --test cluster real_path::many_nodes -- --ignored --nocapture

# Runs the real autoscalers
verify-autoscalers:
    #!/usr/bin/env bash
    set -euo pipefail
    for autoscaler in CLUSTER_AUTOSCALER KARPENTER; do
      if [ -z "${!autoscaler:-}" ]; then echo "$autoscaler is not set: docs/autoscalers.md says how to build it" >&2; continue; fi
      name=$(tr '[:upper:]' '[:lower:]' <<<"$autoscaler")
      cargo test --locked --release --test cluster "autoscalers::$name" -- --ignored --nocapture --test-threads=1
    done

# Runs every check, in the order of .ci/run
ci:
    "{{ just_executable() }}" {{ checks }}
