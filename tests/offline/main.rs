//! Tests without a cluster: the real router, the real binary, golden outputs, and the shape of the code.

// The whole crate is tests: a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod apiserver_unreachable;
mod bad_input;
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
mod layering;
mod limits;
mod links;
mod memory;
mod metrics;
mod mutation;
mod naming;
mod overload;
mod readme;
mod rules_doc;
mod scheduler_config;
mod serve;
mod support;
mod traces;

// Both show the same values to the chart.
#[path = "../cluster/harness/chart_values.rs"]
mod chart_values;

// Helm comes from the same build as the control plane of tests/cluster.
#[path = "../cluster/harness/tools.rs"]
#[allow(dead_code, reason = "the cluster's tests use more of it")]
mod tools;
