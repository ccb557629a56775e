//! Records, by watches, each pod ever created in a namespace, and each preemption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

/// Records from its start on: start it before creating the objects of the test.
#[derive(Clone)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<RecordedPods>>,
}

#[derive(Default)]
struct RecordedPods {
    /// By uid: name of the controller, name of the pod.
    pods: BTreeMap<String, (String, String)>,
    /// The names of the pods that the scheduler preempted.
    preempted: BTreeSet<String>,
}

impl Recorder {
    pub(crate) fn start(client: &Client, namespace: &str) -> Self {
        let seen = Arc::new(Mutex::new(RecordedPods::default()));

        let pods = watcher(Api::<Pod>::namespaced(client.clone(), namespace), watcher::Config::default())
            // Without pauses, a watch of an apiserver that is down blocks its thread forever.
            .default_backoff();
        let record = Arc::clone(&seen);
        tokio::spawn(pods.for_each(move |event| {
            if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event {
                let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
                let owner = owner.map(|owner| owner.name.clone()).unwrap_or_default();
                let uid = pod.uid().unwrap_or_default();
                record.lock().unwrap().pods.insert(uid, (owner, pod.name_any()));
            }
            std::future::ready(())
        }));

        let preemptions = watcher::Config::default().fields("reason=Preempted");
        let events =
            watcher(Api::<Event>::namespaced(client.clone(), namespace), preemptions).default_backoff();
        let record = Arc::clone(&seen);
        tokio::spawn(events.for_each(move |event| {
            if let Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) = event {
                let victim = event.involved_object.name.unwrap_or_default();
                record.lock().unwrap().preempted.insert(victim);
            }
            std::future::ready(())
        }));
        Self { seen }
    }

    /// Returns the number of pods ever created by the controller of that name.
    pub(crate) fn created_by(&self, owner: &str) -> usize {
        self.seen.lock().unwrap().pods.values().filter(|(by, _)| by == owner).count()
    }

    /// Returns the names of the pods that the scheduler preempted, sorted.
    pub(crate) fn preempted(&self) -> Vec<String> {
        self.seen.lock().unwrap().preempted.iter().cloned().collect()
    }
}
