//! What the tests stand on: components as processes on a leash, a control plane made of them, and one namespace a test.

mod arena;
mod components;
mod control_plane;
mod kubectl;
mod nodes;
mod process;
mod recorder;
mod run;
mod scheduler;
mod stages;
mod tools;
mod wait;

pub(crate) use arena::Arena;
pub(crate) use control_plane::ControlPlane;
pub(crate) use kubectl::Kubectl;
pub(crate) use nodes::NodeOptions;
pub(crate) use recorder::Recorder;
pub(crate) use scheduler::{Extender, Scheduler, SchedulerOptions};
pub(crate) use stages::NEVER;
pub(crate) use wait::{consistently, eventually, eventually_within};
