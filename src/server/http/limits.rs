//! The limits of requests and connections, each with its reason. None of them is a framework's default.
//!
//! They are fields of a struct so that tests can shorten them. The program always runs with [`Limits::default`], within its open
//! files ([`Limits::within_files`]): an operator need not tune them.

use std::time::Duration;

/// The limits of one client, and of all clients together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest body of `/validate` and `/mutate`, in bytes.
    pub admission_body: usize,
    /// The largest body of `/scheduler/*`, in bytes.
    pub scheduler_body: usize,
    /// The largest body of `/bind`, in bytes.
    pub bind_body: usize,
    /// The bytes of each body, and of each response, that are not counted. The bytes beyond are taken from
    /// [`Self::admission_memory`] or [`Self::scheduler_memory`], which all requests share.
    pub free_body: usize,
    /// The memory, in bytes, of all bodies of `/validate` and `/mutate` and of their responses together, beyond [`Self::free_body`]
    /// of each. If a newer one needs more, the oldest gives way: a body that is still read is answered 503, a response that is
    /// still sent loses its connection.
    pub admission_memory: usize,
    /// The same for `/scheduler/*`.
    pub scheduler_memory: usize,
    /// The same for `/bind`.
    pub bind_memory: usize,
    /// The bytes that the decoded form of a body may take without being counted, unless the body is long.
    pub free_decoded: usize,
    /// The bytes that the decoded form of a body of `/validate` or `/mutate` may take. Those beyond the free ones are taken from
    /// [`Self::admission_memory`] too.
    pub admission_decoded: usize,
    /// The bytes that the decoded form of a body of `/scheduler/*` may take. Those beyond the free ones are taken from
    /// [`Self::scheduler_memory`] too.
    pub scheduler_decoded: usize,
    /// The number of bodies that may be on their way at once: so many for the webhooks, for the scheduler and for bindings each.
    /// For one more the oldest is shed.
    pub requests: usize,
    /// The number of connections that are served, for each port. For one more, the one that has waited for a request for the longest
    /// gives way.
    pub connections: usize,
    /// The number of [`Self::connections`] that are kept for clients with a certificate, if there is a client CA.
    pub certified_connections: usize,
    /// The number of connections of one address up to which it gives way only after larger ones. Counted for handshakes and
    /// connections apart.
    pub address_connections: usize,
    /// The number of connections beyond [`Self::connections`] whose requests are answered 503, while all others have requests in
    /// flight and none can give way. Further ones are closed at once.
    pub surplus_connections: usize,
    /// The number of TLS handshakes at once. For one more, the oldest gives way.
    pub handshakes: usize,
    /// The time from the accepted connection to the end of the TLS handshake.
    pub handshake_time: Duration,
    /// The time from the first byte of a request's head to its last.
    pub header_time: Duration,
    /// The time from a request's head to the last byte of its body.
    pub body_time: Duration,
    /// The time from a request's head to its response.
    pub handler_time: Duration,
    /// The time from the last byte of a review's body to the end of its check against the cluster.
    pub review_time: Duration,
    /// The time for which a client may take no byte of a response.
    pub write_time: Duration,
    /// The time for which a connection may have no request.
    pub idle_time: Duration,
    /// The time for which the rest of a refused body is thrown away.
    pub linger_time: Duration,
    /// The time after the signal to end in which an idle HTTP/1.1 connection may still bring a request.
    pub last_call_time: Duration,
    /// The time from the signal to end to the end of the process, even if requests are in work.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // object and oldObject, 3 MiB each at most in etcd, as JSON, which may be longer than the protobuf stored.
            admission_body: 8 * MIB,
            // 5,000 full Nodes of 9 KB are 45 MB; with nodeCacheCapable it is names, 230 KB for 5,000.
            scheduler_body: 64 * MIB,
            // A binding's review is 1.5 KB; a scheduler may copy labels and annotations of the pod into it.
            bind_body: 64 * KIB,
            // A daemon pod's review is 5 KB, a DaemonSet's update 20 KB: those are never refused for what others hold.
            free_body: 32 * KIB,
            // Four of the largest. Every client that reaches the port may call these routes, so they must not use up the memory
            // of the scheduler's calls: hence two budgets.
            admission_memory: 32 * MIB,
            // One of the largest, or seven of 1,000 full Nodes: a scheduler calls for one pod at a time.
            scheduler_memory: 72 * MIB,
            // Half of all the bodies that may be on their way, at their largest: a flood of other reviews takes none of it.
            bind_memory: 4 * MIB,
            // A DaemonSet of a hundred containers takes 200 KB. It is so much for each core: other threads work on long bodies.
            free_decoded: MIB,
            // A DaemonSet and its old one of 3,000 containers each, and three times what is left of the budget beside the largest body.
            admission_decoded: 24 * MIB,
            // The worst pod that etcd stores, of 150,000 tolerations, takes 33 MiB, the most nodes that are sent whole 40.
            scheduler_decoded: 48 * MIB,
            // A request is microseconds of work, so only slow bodies fill this; times free_body it is 8 MiB of each kind. To be
            // shed, a good body would have to be older than 255 others, and it comes within milliseconds.
            requests: 256,
            // An apiserver keeps at most 25 idle ones a webhook, a scheduler 2 an extender: enough for any control plane
            // and 1,000 other clients. An idle one costs 35 KiB (2,000 after one request each): 53 MiB in all.
            connections: 1_536,
            // Five apiservers with all of theirs to both webhooks. It is a sixth of all, because by default they show none.
            certified_connections: 256,
            // Five apiservers' to both webhooks: konnectivity and masquerading give all of them one address. Six such addresses fill
            // the port. IPv6 addresses count whole, because the pods of a node share a network of 64 bits.
            address_connections: 256,
            surplus_connections: 64,
            // A good one ends within 10 ms, so it is the oldest of these only if 100,000 others come in a second. An unfinished one
            // costs 75 KiB (60 KB sent, rustls' limit is 64): 77 MiB in all.
            handshakes: 1_024,
            // Two round trips and a signature: milliseconds in a cluster, and the apiserver itself gives up at 10 s.
            handshake_time: Duration::from_secs(5),
            // A good client sends a head in one packet.
            header_time: Duration::from_secs(5),
            // The largest body at 13 MB/s. By then the scheduler has given up, and the apiserver is about to.
            body_time: Duration::from_secs(5),
            // Above body_time, and not above 10 s, the default timeout of an apiserver's call.
            handler_time: Duration::from_secs(10),
            // Half of the 3 s after which the apiserver admits a DaemonSet unchecked, with `failurePolicy: Ignore`. A usual check
            // takes milliseconds.
            review_time: Duration::from_millis(1_500),
            // Only a client that has stopped reading is cut off: each byte that it takes begins the time anew.
            write_time: Duration::from_secs(10),
            // Go's clients close an idle connection after 90 s, and must be the first to close it: a POST that meets a connection
            // which the server closes is lost, because Go does not repeat it. A connection without a first request has as long,
            // because Go opens more of them than it uses.
            idle_time: Duration::from_secs(120),
            // Closing at once would reset the connection, and the 413 on its way would be lost. The bytes are not decrypted.
            linger_time: Duration::from_secs(1),
            // Closing idle connections at once loses requests on their way, which Go does not repeat: 2 of 10,637 in a rolling
            // restart. A request that comes in this time is answered with `connection: close`.
            last_call_time: Duration::from_secs(2),
            // Below the 30 s of terminationGracePeriodSeconds, with time for traces not sent yet; above handler_time.
            drain_time: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// Returns these limits with no more connections, but at least one, than a process with at most `files` open files can serve on
    /// both ports. A process without a file left could not even refuse the next connection.
    #[must_use]
    pub fn within_files(mut self, files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OWN_FILES);
        // Only the secure port has handshakes, and they are short.
        self.handshakes = self.handshakes.min(files / 4).max(1);
        let a_port = files.saturating_sub(self.handshakes) / 2;
        // Surplus connections only get a 503, so they have the smaller part.
        self.surplus_connections = self.surplus_connections.min(a_port / 4);
        self.connections = self.connections.min(a_port - self.surplus_connections).max(1);
        self.certified_connections = self.certified_connections.min(self.connections / 4);
        self.address_connections = self.address_connections.min(self.connections / 4).max(1);
        // A connection with a body on its way gives way to none, so those of the three kinds must not be all.
        self.requests = self.requests.min(self.connections / 6).max(1);
        self
    }
}

/// The files that this process opens besides clients' connections: logs, certificates, watches.
const OWN_FILES: usize = 64;

/// The longest head of an HTTP/1.1 request or header list of an HTTP/2 one, in bytes. Those of the apiserver and the scheduler are
/// below 1 KiB.
pub const HEAD: usize = 16 * KIB;

/// The number of streams at once on an HTTP/2 connection: as many as Go's clients start with, and below [`Limits::requests`], so
/// that one connection does not take all places.
pub const STREAMS: u32 = 100;

/// The bytes that an HTTP/2 client may send ahead on one stream: more than a usual body, so that the client need not wait.
pub const STREAM_WINDOW: u32 = 256 * KIB as u32;

/// The bytes that an HTTP/2 client may send ahead in all: the bound of what one connection makes the server buffer.
pub const CONNECTION_WINDOW: u32 = MIB as u32;

/// The number of HTTP/2 streams that a client may have reset before the server took them, as h2 chose after CVE-2023-44487 (rapid
/// reset).
pub const PENDING_RESETS: usize = 20;

/// The number of HTTP/2 streams that the server resets for a client's faults before it cuts the client off. A good client has none.
pub const LOCAL_RESETS: usize = 64;

/// The number of connections that the kernel keeps until they are accepted: after a restart a control plane connects all at once.
pub const BACKLOG: u32 = 1_024;

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_files() {
        let fitting = |files| {
            let limits = Limits::default().within_files(files);
            (limits.connections, limits.surplus_connections, limits.handshakes)
        };
        assert_eq!(fitting(u64::MAX), (1_536, 64, 1_024));
        assert_eq!(fitting(4_288), (1_536, 64, 1_024));
        assert_eq!(fitting(1_024), (296, 64, 240));
        assert_eq!(fitting(128), (18, 6, 16));
        assert_eq!(fitting(0), (1, 0, 1));
        let limits = Limits::default().within_files(128);
        assert_eq!((limits.certified_connections, limits.address_connections, limits.requests), (4, 4, 3));
    }

    #[test]
    fn slow_bodies_do_not_take_every_connection() {
        for files in [u64::MAX, 4_288, 1_024, 128] {
            let limits = Limits::default().within_files(files);
            // The scheduler's, the webhooks' and those of bindings.
            assert!(3 * limits.requests < limits.connections - limits.certified_connections, "{files}");
        }
    }
}
