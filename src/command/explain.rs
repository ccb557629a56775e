//! `explain`: reads objects from manifests or a cluster, and prints a row for every DaemonSet and node.

mod cluster;
pub mod manifests;
mod output;

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::cli::{ExplainArgs, ExplainOutput};
use crate::explain::inventory::Inventory;
use crate::explain::{RowFilter, explain};
use crate::policy::Policy;

/// Prints the rows that the flags select.
///
/// # Errors
/// Fails if the objects cannot be read, if the DaemonSet or node of the flags is not among them, or if stdout cannot be written. A
/// closed pipe is not an error.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut inventory = Inventory::new(Arc::new(Policy::default()));
    if args.sources.filename.is_empty() {
        cluster::read(args.sources.kubeconfig.as_deref(), &mut inventory)?;
    } else {
        manifests::read(&args.sources.filename, &mut inventory)?;
    }
    let filter = filter(args, &inventory)?;
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = match args.output {
        ExplainOutput::Json => {
            output::json(&mut out, explain(&inventory.cluster, &inventory.failures, &filter))
        }
        ExplainOutput::Table => {
            output::table(&mut out, || explain(&inventory.cluster, &inventory.failures, &filter))
        }
    };
    match written.and_then(|()| out.flush()) {
        // The reader has closed the pipe, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("failed to write").map(|()| ExitCode::SUCCESS),
    }
}

/// Returns the filter that the flags ask for. Fails if the DaemonSet or node that it names is not in the inventory.
fn filter(args: &ExplainArgs, inventory: &Inventory) -> anyhow::Result<RowFilter> {
    let cluster = &inventory.cluster;
    if let Some((namespace, name)) = &args.daemon_set {
        let is_named = |metadata: &crate::api::meta::Metadata| {
            metadata.namespace == *namespace && metadata.name == *name
        };
        let mut daemon_sets = cluster.daemon_sets().map(|(_, info)| &info.daemon_set.metadata);
        if !daemon_sets.any(is_named) {
            bail!(
                "DaemonSet {namespace}/{name} not found among {}",
                counted(cluster.daemon_sets().count(), "DaemonSet")
            );
        }
    }
    if let Some(name) = &args.node {
        let exists = cluster.node(name).is_some_and(|(_, info)| info.node.is_some());
        if !exists {
            let count = cluster.nodes().filter(|(_, info)| info.node.is_some()).count();
            bail!("Node {name} not found among {}", counted(count, "Node"));
        }
    }
    Ok(RowFilter { daemon_set: args.daemon_set.clone(), node: args.node.clone() })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
