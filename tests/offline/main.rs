//! Tests without a cluster: the real router, the real binary, golden files, and the layers of the code.

// The crate contains only tests: a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod apiserver_unreachable;
mod bad_input;
mod bind;
mod certificates;
mod chart;
mod clock;
mod config;
mod conformance;
mod differential;
mod explain;
mod extender;
mod extender_wire;
mod faults;
mod fuzz;
mod images;
mod layering;
mod limits;
mod links;
mod log_flood;
mod long_tasks;
mod memory;
mod metrics;
mod mutation;
mod naming;
mod overload;
mod readme;
mod rules_doc;
mod scheduler_config;
mod serve;
mod sources;
mod support;
#[cfg(feature = "otlp")]
mod traces;

// The cluster tests use the same values.
#[path = "../cluster/harness/chart_values.rs"]
mod chart_values;

#[path = "../cluster/harness/image_environment.rs"]
mod image_environment;

// Helm and the oracle come from the cache of the cluster tests.
#[path = "../cluster/harness/tools.rs"]
#[allow(dead_code, reason = "the cluster's tests use more of it")]
mod tools;
