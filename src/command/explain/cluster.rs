//! Objects of a running cluster, listed once, page by page: nothing is watched and nothing is written.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::meta::TypeMeta;
use crate::explain::inventory::Inventory;

/// Objects per page, as kubectl has it.
const PAGE: u32 = 500;
/// The most pages of one kind, for a server whose list does not end.
const MAX_PAGES: usize = 20_000;
/// The most restarts of a list because the server has expired its continue token.
const MAX_RESTARTS: usize = 3;
/// The time for one page.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A kind that is listed.
struct ListedKind {
    path: &'static str,
    api_version: &'static str,
    kind: &'static str,
    field_selector: Option<&'static str>,
    /// True if the server may refuse the list. Rows then have less exact reasons.
    is_optional: bool,
}

/// Returns the kinds to list; a kind comes after those that it refers to.
fn listed() -> [ListedKind; 9] {
    let listed = |path, api_version, kind, is_optional| ListedKind {
        path,
        api_version,
        kind,
        field_selector: None,
        is_optional,
    };
    [
        listed("/api/v1/namespaces", "v1", "Namespace", true),
        listed("/apis/scheduling.k8s.io/v1/priorityclasses", "scheduling.k8s.io/v1", "PriorityClass", true),
        listed("/apis/node.k8s.io/v1/runtimeclasses", "node.k8s.io/v1", "RuntimeClass", true),
        listed("/api/v1/limitranges", "v1", "LimitRange", true),
        listed("/api/v1/resourcequotas", "v1", "ResourceQuota", true),
        ListedKind {
            field_selector: Some("involvedObject.kind=DaemonSet,reason=FailedCreate"),
            ..listed("/api/v1/events", "v1", "Event", true)
        },
        listed("/api/v1/nodes", "v1", "Node", false),
        listed("/apis/apps/v1/daemonsets", "apps/v1", "DaemonSet", false),
        listed("/api/v1/pods", "v1", "Pod", false),
    ]
}

/// Lists all kinds that rows are computed from, and adds the objects to `inventory`. Blocks until that is done.
///
/// # Errors
/// Fails if no cluster is configured, if Nodes, DaemonSets or Pods cannot be listed, or if the list of another kind fails for
/// another reason than a refusal.
pub(super) fn read(kubeconfig: Option<&Path>, inventory: &mut Inventory) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(async {
        let client = Client::try_from(config(kubeconfig).await?).context("failed to set up a client")?;
        for listed in listed() {
            match list(&client, &listed, inventory).await {
                Ok(()) => {}
                Err(error) if listed.is_optional && is_refused(&error) => warn(&listed, &error),
                Err(error) => return Err(error.context(format!("failed to list {}", listed.path))),
            }
        }
        Ok(())
    })
}

async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read --kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("failed to use --kubeconfig {}", path.display()))?
        }
        None => Config::infer().await.context(
            "no cluster to look at: give --kubeconfig or -f, or set KUBECONFIG; ~/.kube/config and the service account of a pod are used too",
        )?,
    };
    config.connect_timeout = Some(TIMEOUT);
    config.read_timeout = Some(TIMEOUT);
    Ok(config)
}

/// One page of a list; items stay raw until each is decoded.
#[derive(Deserialize)]
struct Page<'t> {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'t RawValue>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

async fn list(client: &Client, listed: &ListedKind, inventory: &mut Inventory) -> anyhow::Result<()> {
    let kind = TypeMeta { api_version: listed.api_version.to_owned(), kind: listed.kind.to_owned() };
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = listed.field_selector.map(str::to_owned);
    let mut restarts = 0;
    for _ in 0..MAX_PAGES {
        let request = Request::new(listed.path).list(&params)?;
        let text = match client.request_text(request).await {
            Ok(text) => text,
            // Objects of earlier pages stay: the cache identifies them by UID.
            Err(kube::Error::Api(status)) if status.code == 410 && restarts < MAX_RESTARTS => {
                restarts += 1;
                params.continue_token = None;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let page: Page<'_> = serde_json::from_str(&text).context("the answer is no list")?;
        for item in page.items.unwrap_or_default() {
            inventory
                .apply(&kind, item.get())
                .with_context(|| format!("a {} has another shape", kind.kind))?;
        }
        match page.metadata.next.filter(|next| !next.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(()),
        }
    }
    Err(anyhow!("more than {MAX_PAGES} pages of {PAGE}"))
}

/// Returns true if the server forbids the list or does not know the kind (401, 403, 404).
fn is_refused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404))
}

#[expect(clippy::print_stderr, reason = "a command's warning, beside its output")]
fn warn(listed: &ListedKind, error: &anyhow::Error) {
    eprintln!("warning: without {}s, reasons may be incomplete: {error}", listed.kind);
}
