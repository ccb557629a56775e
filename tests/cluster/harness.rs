//! What the tests stand on: components as processes on a leash, a control plane made of them, and one namespace a test.

mod arena;
mod certificates;
mod chart_values;
mod cluster_ip;
mod components;
mod control_plane;
mod forwarder;
mod https;
mod kubectl;
mod metrics;
mod nodes;
mod process;
mod recorder;
mod release;
mod replica;
mod rights;
mod run;
mod scheduler;
mod served;
mod stages;
mod tools;
mod wait;
mod warden;
mod webhooks;

pub(crate) use arena::{Arena, POOL, describe, is_bound, node_of, object};
pub(crate) use chart_values::MATRIX;
pub(crate) use control_plane::ControlPlane;
pub(crate) use forwarder::Forwarder;
pub(crate) use https::{HttpsServer, mutating_webhook};
pub(crate) use kubectl::Kubectl;
pub(crate) use metrics::sum;
pub(crate) use nodes::NodeOptions;
<<<<<<< HEAD
pub(crate) use scheduler::{Extender, Scheduler, SchedulerOptions};
=======
pub(crate) use release::{RELEASE, Release, chart, daemon_pod, daemon_set};
pub(crate) use replica::Replica;
pub(crate) use scheduler::{Scheduler, SchedulerOptions};
>>>>>>> chart
pub(crate) use served::Served;
pub(crate) use stages::{GONE_AFTER, NEVER, READY_AFTER};
pub(crate) use tools::say;
pub(crate) use wait::{consistently, eventually, eventually_within};
pub(crate) use warden::{Warden, WardenOptions};
pub(crate) use webhooks::{PERMISSIVE, owned_by_daemon_set};
