//! The daemonset-warden program: see `daemonset-warden --help`.
#![expect(clippy::print_stderr, reason = "the error of a failed command")]

use std::process::ExitCode;

use clap::Parser;
use daemonset_warden::cli;
use daemonset_warden::cli::Cli;
use daemonset_warden::command;

fn main() -> ExitCode {
    // Fails only if a provider is installed already; nothing has run before this line.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // --help and --version are not errors, and go to stdout.
        Err(help) if !help.use_stderr() => help.exit(),
        Err(error) => {
            eprintln!("{}", cli::one_line(&error));
            return ExitCode::from(cli::usage_failure_code(std::env::args_os()));
        }
    };
    let failure = cli.command.failure_code();
    match command::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(failure)
        }
    }
}
