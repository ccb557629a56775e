//! Tests without a cluster: the real router, the real binary, golden outputs, and the shape of the code.

mod conformance_pods;
