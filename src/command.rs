//! The subcommands: each connects the parts that do the work, and decides nothing itself.

pub mod config;
pub mod explain;
pub mod leader_election;
pub mod long_tasks;
pub mod scheduler_config;
pub mod serve;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

/// Runs the subcommand of the command line. Blocks until it is done; `serve` is done after a signal.
///
/// # Errors
/// Fails if the subcommand fails.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(*args, &cli.log).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::run(&args),
        Command::SchedulerConfig(args) => scheduler_config::run(&args).map(|()| ExitCode::SUCCESS),
    }
}
