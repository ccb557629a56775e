//! The deeds of a tenant.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::templates::Template;
use super::{Means, forgery};
use crate::harness::is_bound;
use crate::hostile::dice::Dice;

/// A pod that never goes.
const STAYS: &str = "stays";
/// The time in which a pod that fits is bound.
const BINDING: Duration = Duration::from_secs(3);

/// The kinds of deeds. A number is that of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Create(Template, usize),
    Delete(Template, usize),
    /// Another template, by an annotation.
    Change(Template, usize),
    /// Deletes all waiting pods, three times.
    DeleteWaiting,
    /// A pod of its own that names its DaemonSet, lands and is deleted.
    ComeAndGo,
    /// A pod of its own that names its DaemonSet and waits for a scheduler that nobody serves.
    Pose,
    /// A pod with a finalizer that is deleted, and stays terminating until the deed is done again.
    NeverGo,
    /// Events about the others' DaemonSets.
    ForgeEvents,
}

impl Deed {
    /// Returns a round of deeds.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![
            Self::DeleteWaiting,
            Self::DeleteWaiting,
            Self::ComeAndGo,
            Self::Pose,
            Self::NeverGo,
            Self::ForgeEvents,
        ];
        for template in Template::ALL {
            for pool in [0, 1] {
                all.extend([Self::Create(template, pool), Self::Change(template, pool)]);
            }
            all.push(Self::Delete(template, usize::from(template.name().len().is_multiple_of(2))));
        }
        all
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create(template, _) => template.name(),
            Self::Delete(..) => "deleted DaemonSets",
            Self::Change(..) => "changed templates",
            Self::DeleteWaiting => "deleted waiting pods",
            Self::ComeAndGo => "pods that come and go",
            Self::Pose => "pods that pose",
            Self::NeverGo => "pods that never go",
            Self::ForgeEvents => "forged Events",
        }
    }
}

impl Means {
    /// Does a deed. The apiserver may refuse any of it.
    pub(super) async fn commit(&self, deed: Deed, dice: &mut Dice) -> Result<(), String> {
        match deed {
            Deed::Create(template, pool) => {
                let found = self.templates.iter().find(|row| (row.0, row.1) == (template, pool));
                let (_, _, daemon_set) = found.expect("each template on each pool");
                told(self.daemon_sets.create(&PostParams::default(), daemon_set).await)
            }
            Deed::Delete(template, pool) => {
                told(self.daemon_sets.delete(&template.name_on(pool), &DeleteParams::default()).await)
            }
            Deed::Change(template, pool) => {
                let changed = json!({ "changed": dice.below(u64::MAX).to_string() });
                let change = json!({ "spec": { "template": { "metadata": { "annotations": changed } } } });
                let (name, patch) = (template.name_on(pool), Patch::Merge(&change));
                told(self.daemon_sets.patch(&name, &PatchParams::default(), &patch).await)
            }
            Deed::DeleteWaiting => {
                let mut deleted = 0;
                for _ in 0..3 {
                    deleted += self.delete_waiting().await?;
                    tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
                }
                if deleted > 0 { Ok(()) } else { Err("no pod waits".to_owned()) }
            }
            Deed::ComeAndGo => self.come_and_go().await,
            Deed::Pose => {
                let owner = self.owner().await?;
                let nobody = format!("{}-nobody", self.scheduler);
                let pod = forgery::owned_pod("poses", &owner, &self.node, &nobody, "10m");
                let _ = self.pods.delete("poses", &now()).await;
                self.create(&pod).await
            }
            Deed::NeverGo => self.never_go().await,
            Deed::ForgeEvents => {
                let others = self.others.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
                if others.items.is_empty() {
                    return Err("the others have no DaemonSets yet".to_owned());
                }
                for other in &others.items {
                    forgery::failed_create(&self.client, &self.namespace, other).await?;
                }
                Ok(())
            }
        }
    }

    /// Deletes the pods that are not bound. Returns their number.
    async fn delete_waiting(&self) -> Result<usize, String> {
        let pods = self.pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let mut deleted = 0;
        for pod in pods.items.iter().filter(|pod| !is_bound(pod) && pod.name_any() != STAYS) {
            deleted += usize::from(self.pods.delete(&pod.name_any(), &now()).await.is_ok());
        }
        Ok(deleted)
    }

    async fn come_and_go(&self) -> Result<(), String> {
        let owner = self.owner().await?;
        let pod = forgery::owned_pod("comes", &owner, &self.node, &self.scheduler, "5m");
        self.create(&pod).await?;
        let landed = lands(&self.pods, "comes").await;
        let _ = self.pods.delete("comes", &now()).await;
        if landed { Ok(()) } else { Err("it was not bound".to_owned()) }
    }

    /// Creates a pod. Where the daemon pods take the whole quota, deletes one of them, and the controller is not there first every
    /// time.
    async fn create(&self, pod: &Pod) -> Result<(), String> {
        let mut result = Ok(());
        for _ in 0..5 {
            result = told(self.pods.create(&PostParams::default(), pod).await);
            if result.is_ok() {
                return result;
            }
            let pods = self.pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            if let Some(one) = pods.items.iter().find(|one| one.name_any() != STAYS) {
                let _ = self.pods.delete(&one.name_any(), &now()).await;
            }
        }
        result
    }

    async fn never_go(&self) -> Result<(), String> {
        let end = json!({ "metadata": { "finalizers": null } });
        if self.pods.patch(STAYS, &PatchParams::default(), &Patch::Merge(&end)).await.is_ok() {
            return Ok(());
        }
        let owner = self.owner().await?;
        let mut pod =
            forgery::owned_pod(STAYS, &owner, &self.node, &format!("{}-nobody", self.scheduler), "1m");
        pod.metadata.finalizers = Some(vec!["example.test/never".to_owned()]);
        self.create(&pod).await?;
        told(self.pods.delete(STAYS, &now()).await)
    }

    /// Returns the DaemonSet for the probe's node whose own pods the quota refuses, and creates it where it is missing.
    async fn owner(&self) -> Result<DaemonSet, String> {
        let template = Template::BeyondTheQuota;
        if let Ok(there) = self.daemon_sets.get(&template.name_on(1)).await {
            return Ok(there);
        }
        let row = self.templates.iter().find(|row| (row.0, row.1) == (template, 1)).expect("it is there");
        self.daemon_sets.create(&PostParams::default(), &row.2).await.map_err(|e| e.to_string())
    }
}

async fn lands(pods: &Api<Pod>, name: &str) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < BINDING {
        if pods.get(name).await.is_ok_and(|pod| is_bound(&pod)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

fn now() -> DeleteParams {
    DeleteParams::default().grace_period(0)
}

fn told<T>(result: Result<T, kube::Error>) -> Result<(), String> {
    result.map(drop).map_err(|e| e.to_string())
}
