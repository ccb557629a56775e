//! Tests against a real control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, KWOK nodes.
//!
//! The first run builds these from Go modules (about five minutes on two cores); later runs start them in seconds.
//! The tests share one control plane and run in parallel: each has its own namespace, and its own nodes, which only its
//! own pods select. A test that stops or slows a component starts its own (a second scheduler, a second warden).
//!
//! When a test fails, the logs of all components stay in a folder, and the run prints its path.

// clippy.toml allows these in `#[test]` functions only; the functions that tests call are test code too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

mod admission;
mod autoscalers;
mod bind;
mod bind_rules;
mod birth_window;
mod chart;
mod chart_faults;
mod chart_load;
mod chart_match_conditions;
mod chart_rbac;
mod chart_wiring;
mod control_plane;
mod events_and_explain;
mod extender;
mod fail_over;
mod gates;
mod holds;
mod hostile;
mod install_to_join;
mod leader_election;
mod lifecycle;
mod live_rules;
mod manifests;
mod nomination;
mod placement;
mod predecessors;
mod priority;
mod real_path;
mod rejections;
mod replicas;
mod reservation;
mod rollouts;
mod scenarios;
