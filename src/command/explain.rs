//! `explain`: objects from manifests or a cluster, then a row for every DaemonSet and node.

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

/// Prints what is asked for.
///
/// # Errors
/// When the objects cannot be read, or lack what was named.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut observed = Inventory::new(Arc::new(Policy::default()));
    if args.sources.filename.is_empty() {
        cluster::read(args.sources.kubeconfig.as_deref(), &mut observed)?;
    } else {
        manifests::read(&args.sources.filename, &mut observed)?;
    }
    let filter = filter(args, &observed)?;
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = match args.output {
        ExplainOutput::Json => {
            output::json(&mut out, explain(&observed.cluster, &observed.failures, &filter))
        }
        ExplainOutput::Table => {
            output::table(&mut out, || explain(&observed.cluster, &observed.failures, &filter))
        }
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("failed to write").map(|()| ExitCode::SUCCESS),
    }
}

/// What was named, once it is sure that it exists.
fn filter(args: &ExplainArgs, observed: &Inventory) -> anyhow::Result<RowFilter> {
    let cluster = &observed.cluster;
    if let Some((namespace, name)) = &args.daemon_set {
        let is_it = |metadata: &crate::api::meta::Metadata| {
            metadata.namespace == *namespace && metadata.name == *name
        };
        let mut daemon_sets = cluster.daemon_sets().map(|(_, info)| &info.daemon_set.metadata);
        if !daemon_sets.any(is_it) {
            bail!(
                "DaemonSet {namespace}/{name} not found among {}",
                counted(cluster.daemon_sets().count(), "DaemonSet")
            );
        }
    }
    if let Some(name) = &args.node {
        let exists = cluster.node(name).is_some_and(|(_, state)| state.node.is_some());
        if !exists {
            let count = cluster.nodes().filter(|(_, state)| state.node.is_some()).count();
            bail!("Node {name} not found among {}", counted(count, "Node"));
        }
    }
    Ok(RowFilter { daemon_set: args.daemon_set.clone(), node: args.node.clone() })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
