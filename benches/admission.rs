//! `/mutate` without the server: from the body of a review to the patch.

// A failed unwrap must end the benchmark.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemonset_warden::admission::mutation;
use daemonset_warden::api::admission_v1;
use daemonset_warden::policy::Policy;

/// Daemon pods of 4 to 5 KB: the first needs its target and all six tolerations, the second more, the third nothing.
const REVIEWS: [(&str, &str); 3] = [
    ("bound by its controller", include_str!("../tests/data/mutate/bound-by-its-controller.review.json")),
    ("legacy, host network", include_str!("../tests/data/mutate/legacy-host-network.review.json")),
    ("nothing to do", include_str!("../tests/data/mutate/of-kubernetes-own-controller.review.json")),
];

fn mutate(criterion: &mut Criterion) {
    let policy = Policy::default();
    let mut group = criterion.benchmark_group("mutate");
    for (label, review) in REVIEWS {
        group.throughput(Throughput::Bytes(review.len() as u64));
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                let request = admission_v1::parse(black_box(review.as_bytes())).unwrap();
                mutation::review(&policy, &request, None, None).unwrap().to_base64()
            });
        });
    }
    group.bench_function("reading the review alone", |bencher| {
        bencher.iter(|| admission_v1::parse(black_box(REVIEWS[0].1.as_bytes())).unwrap().object.is_some());
    });
    group.finish();
}

criterion_group!(benches, mutate);
criterion_main!(benches);
