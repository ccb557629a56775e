//! Wiring only, no decisions: what each subcommand starts, and how it ends.

mod scheduler_config;
mod serve;

use crate::cli::{Cli, Command};

/// Does what the command line says.
///
/// # Errors
/// When it cannot be done.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(args, &cli.log),
        Command::SchedulerConfig(args) => scheduler_config::run(&args),
    }
}
