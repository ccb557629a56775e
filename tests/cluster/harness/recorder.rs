//! What happened in a namespace, as a watch saw it: each pod ever created, and each preemption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

/// Sees everything from its creation on; start it before the objects that it shall see.
#[derive(Clone)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<RecordedPods>>,
}

#[derive(Default)]
struct RecordedPods {
    /// By uid: name of the controller, name of the pod.
    pods: BTreeMap<String, (String, String)>,
    /// Pods that the scheduler evicted.
    preempted: BTreeSet<String>,
}

impl Recorder {
    pub(crate) fn start(client: &Client, namespace: &str) -> Self {
        let seen = Arc::new(Mutex::new(RecordedPods::default()));

        let pods = watcher(Api::<Pod>::namespaced(client.clone(), namespace), watcher::Config::default())
            // Without pauses, a watch of an apiserver that has gone never gives its thread back.
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

    /// How many pods the controller of that name has ever made.
    pub(crate) fn created_by(&self, owner: &str) -> usize {
        self.seen.lock().unwrap().pods.values().filter(|(by, _)| by == owner).count()
    }

    /// The pods that preemption evicted, by name.
    pub(crate) fn preempted(&self) -> Vec<String> {
        self.seen.lock().unwrap().preempted.iter().cloned().collect()
    }
}
