//! Wiring only, no decisions: what each subcommand starts, and how it ends.

pub mod config;
pub mod explain;
pub mod scheduler_config;
mod serve;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

/// Does what the command line says.
///
/// # Errors
/// When it cannot be done.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(*args, &cli.log).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::run(&args),
        Command::SchedulerConfig(args) => scheduler_config::run(&args).map(|()| ExitCode::SUCCESS),
    }
}
