//! Leader election of `serve`: the flags, and the cluster's part in it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::cli::ServeArgs;
use crate::reservation::View;
use crate::reservation::judge::{Judge, JudgeSight, JudgeTimes};
use crate::scheduling::names::dns_1123_subdomain_faults;
use crate::watch::shared_cache::SharedCache;
use crate::writes::lease::{JudgingCluster, LeaseSettings, SharedJudge, new_identity};

/// The values of the flags and of the environment, checked.
#[derive(Debug, Clone)]
pub(super) struct LeaderElection {
    /// The names of the Lease and of the own Pod.
    pub(super) lease: LeaseSettings,
    times: JudgeTimes,
}

impl LeaderElection {
    /// Reads the flags. Returns `None` without --leader-elect. `namespace` and `pod` are those of the own Pod.
    ///
    /// # Errors
    /// Fails with every fault at once.
    pub(super) fn read(
        args: &ServeArgs,
        namespace: Option<&str>,
        pod: Option<&str>,
    ) -> anyhow::Result<Option<Self>> {
        if !args.election.leader_elect {
            return Ok(None);
        }
        let election = &args.election;
        let times = JudgeTimes {
            lease_duration: election.leader_elect_lease_duration,
            renew_deadline: election.leader_elect_renew_deadline,
            retry_period: election.leader_elect_retry_period,
        };
        let mut faults: Vec<_> =
            times.faults().into_iter().map(|fault| format!("--leader-elect: {fault}")).collect();
        let lease_namespace = election.leader_elect_resource_namespace.as_deref().or(namespace);
        if lease_namespace.is_none() {
            faults.push(
                "--leader-elect-resource-namespace is missing, and POD_NAMESPACE is not set".to_owned(),
            );
        }
        let named = [
            ("--leader-elect-resource-namespace", lease_namespace),
            ("--leader-elect-resource-name", Some(election.leader_elect_resource_name.as_str())),
        ];
        for (flag, name) in named {
            let wrong = name.map(dns_1123_subdomain_faults).unwrap_or_default();
            faults.extend(wrong.first().map(|fault| format!("{flag}: {fault}")));
        }
        if !faults.is_empty() {
            anyhow::bail!(faults.join("; "));
        }
        let own_pod = namespace.zip(pod).map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()));
        let lease = LeaseSettings {
            namespace: lease_namespace.context("it was checked above")?.to_owned(),
            name: election.leader_elect_resource_name.clone(),
            own_pod,
        };
        Ok(Some(Self { lease, times }))
    }

    /// Returns the longest time of a hand-over: two seconds for bindings that were let through, one lease duration for another
    /// replica, and a second for the calls.
    pub(super) fn longest_hand_over(&self) -> Duration {
        self.times.lease_duration + Duration::from_secs(3)
    }

    /// Returns a judge that stands by.
    pub(super) fn judge(&self) -> SharedJudge {
        let own_pod = self.lease.own_pod.as_ref().map(|(_, pod)| pod.clone());
        let name = own_pod.clone().unwrap_or_else(host_name);
        SharedJudge::new(Judge::new(new_identity(&name), own_pod, self.times, Instant::now()))
    }
}

/// Returns the host's name, as in the identities of Kubernetes' own components.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { env!("CARGO_PKG_NAME").to_owned() } else { name.to_owned() }
}

/// The cluster as leader election sees it: the shared cache, with the name of the own Pod.
pub(super) struct ElectionView {
    pub(super) cache: SharedCache,
    pub(super) own_pod: Option<String>,
}

impl JudgingCluster for ElectionView {
    fn look(&self, now: Instant) -> JudgeSight {
        let may_stand = self.cache.is_synced() && self.cache.may_refuse(now);
        let is_complete = !self.cache.lacks_events(now);
        let view = self.cache.lock();
        JudgeSight {
            replicas: view.cache.replicas().of_release(self.own_pod.as_deref()),
            may_stand,
            is_complete,
            unseen_bindings: view.reservation.bind_assumed_len(),
        }
    }

    fn set_judging(&self, is_judging: bool, now: Instant) {
        let View { cache, reservation } = &mut *self.cache.lock();
        reservation.set_judging(cache, is_judging, now);
    }

    fn spent_note(&self, now: Instant) -> String {
        let View { cache, reservation } = &mut *self.cache.lock();
        reservation.spent_note(cache, now)
    }

    fn restore_spent(&self, note: &str, now: Instant) {
        let View { cache, reservation } = &mut *self.cache.lock();
        reservation.restore_spent(cache, note, now);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn read(
        args: &[&str],
        namespace: Option<&str>,
        pod: Option<&str>,
    ) -> Result<Option<LeaderElection>, String> {
        let args = [&["daemonset-warden", "serve"], args].concat();
        let Command::Serve(args) = Cli::try_parse_from(args).unwrap().command else { panic!("serve") };
        LeaderElection::read(&args, namespace, pod).map_err(|error| error.to_string())
    }

    #[test]
    fn the_flags_have_defaults() {
        assert!(read(&[], Some("warden"), Some("a")).unwrap().is_none());
        assert!(read(&["--leader-elect=false"], Some("warden"), Some("a")).unwrap().is_none());
        let election = read(&["--leader-elect"], Some("warden"), Some("a")).unwrap().unwrap();
        let LeaseSettings { namespace, name, own_pod } = &election.lease;
        assert_eq!((namespace.as_str(), name.as_str()), ("warden", "daemonset-warden"));
        assert_eq!(own_pod, &Some(("warden".to_owned(), "a".to_owned())));
        assert!(format!("{:?}", election.judge().state()).contains("Standby"));
        let other = [
            "--leader-elect",
            "--leader-elect-resource-namespace=kube-system",
            "--leader-elect-resource-name=b",
        ];
        let election = read(&other, None, None).unwrap().unwrap();
        assert_eq!((election.lease.namespace.as_str(), election.lease.name.as_str()), ("kube-system", "b"));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let args = [
            "--leader-elect",
            "--leader-elect-lease-duration=1s",
            "--leader-elect-renew-deadline=1s",
            "--leader-elect-retry-period=1s",
            "--leader-elect-resource-name=A_b",
        ];
        let faults = read(&args, None, None).unwrap_err();
        for expected in [
            "leaseDuration must be greater than renewDeadline",
            "renewDeadline must be greater than retryPeriod*JitterFactor",
            "POD_NAMESPACE is not set",
            "--leader-elect-resource-name: ",
        ] {
            assert!(faults.contains(expected), "{faults}");
        }
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}
