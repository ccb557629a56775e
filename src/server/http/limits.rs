//! Every limit, each with its argument; none is a framework's default.
//!
//! They are fields of a struct so that tests can shorten them; the program runs with [`Limits::default`] only, because a
//! limit that an operator has to find is a limit that is wrong.

use std::time::Duration;

/// What one client, and all of them together, may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest body of `/validate` and `/mutate`.
    pub admission_body: usize,
    /// The largest body of `/scheduler/*`.
    pub scheduler_body: usize,
    /// Bytes of a body that are free; what is beyond them is taken from a [`Self::admission_memory`] or
    /// [`Self::scheduler_memory`] that all requests share.
    pub free_body: usize,
    /// What all bodies of `/validate` and `/mutate` together may hold beyond their free bytes; as for the scheduler, one that
    /// is late gives way.
    pub admission_memory: usize,
    /// What all bodies of `/scheduler/*` and their answers together may hold beyond their free bytes.
    pub scheduler_memory: usize,
    /// Requests of the webhooks, and again of the scheduler, whose bodies are on their way at once; the slowest is shed for
    /// one more.
    pub requests: usize,
    /// Connections that are served; requests on more are shed.
    pub connections: usize,
    /// Connections beyond [`Self::connections`] that are still told so; more are closed unheard.
    pub surplus_connections: usize,
    /// TLS handshakes at once; a connection beyond is closed unheard.
    pub handshakes: usize,
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake_time: Duration,
    /// From the first byte of a request's head to its last.
    pub header_time: Duration,
    /// From a request's head to the last byte of its body.
    pub body_time: Duration,
    /// From a request's head to its answer.
    pub handler_time: Duration,
    /// For how long a client may take no byte of an answer.
    pub write_time: Duration,
    /// For how long a connection may have no request.
    pub idle_time: Duration,
    /// For how long what is left of a refused body is thrown away.
    pub linger_time: Duration,
    /// After the signal, for how long an idle HTTP/1.1 connection may still bring a request.
    pub last_call_time: Duration,
    /// From the signal to the end of the process, whatever is still in work.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // object and oldObject, 3 MiB each at most in etcd, as JSON, which may be longer than the protobuf stored.
            admission_body: 8 * MIB,
            // 5,000 full Nodes of 9 KB are 45 MB; with nodeCacheCapable it is names, 230 KB for 5,000.
            scheduler_body: 64 * MIB,
            // A daemon pod's review is 5 KB, a DaemonSet's update 20 KB: those are never refused for what others hold.
            free_body: 32 * KIB,
            // Four of the largest. Anybody who reaches the port may call these routes, so they must not use up what the
            // scheduler's calls need: hence two budgets.
            admission_memory: 32 * MIB,
            // One of the largest, with the eighth of it that it grows from, or seven for 1,000 full Nodes: a scheduler calls for
            // one pod at a time. One without Content-Length, which no scheduler sends, may be 48 MiB.
            scheduler_memory: 72 * MIB,
            // A request is microseconds of work, so only slow bodies fill this; times free_body it is 8 MiB of each kind. A good
            // body would have to be slower than 256 others: they come in milliseconds.
            requests: 256,
            // An apiserver keeps at most 25 idle ones a webhook, a scheduler 2 an extender: enough for any control plane
            // and 2,000 strangers. An idle one costs 26 KiB (2,000 after one request each, debug build): 65 MiB in all.
            connections: 2_560,
            surplus_connections: 64,
            // A silent client holds a handshake for handshake_time: 200 new ones a second are borne before others suffer.
            handshakes: 1_024,
            // Two round trips and a signature: milliseconds in a cluster, and the apiserver itself gives up at 10 s.
            handshake_time: Duration::from_secs(5),
            // A head is one packet.
            header_time: Duration::from_secs(5),
            // The largest body at 13 MB/s; the extender's client has long given up, the webhook's is about to.
            body_time: Duration::from_secs(5),
            // Above body_time, and not above 10 s, the apiserver's default timeout, after which nobody listens.
            handler_time: Duration::from_secs(10),
            // Progress, not completion: only who has stopped reading is cut off.
            write_time: Duration::from_secs(10),
            // Go's clients drop an idle connection after 90 s. Whoever closes first wins the race against the next POST,
            // which Go does not repeat: it must be them. Also holds for a connection without a first request, since Go opens
            // more of them than it uses.
            idle_time: Duration::from_secs(120),
            // Closing at once would reset the connection and with it lose the 413 on its way. The bytes are not decrypted.
            linger_time: Duration::from_secs(1),
            // Closing idle connections at once loses requests that are on their way, which Go does not repeat: 2 of 10,637 in a
            // rolling restart. In this time what comes is answered, and told that the connection closes.
            last_call_time: Duration::from_secs(2),
            // Below the 30 s of terminationGracePeriodSeconds, with time for traces not sent yet; above handler_time.
            drain_time: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// As many connections as a process with `files` open files at most can serve on both ports: without a file left, the
    /// next connection could not even be told that it is one too many.
    #[must_use]
    pub fn within_files(mut self, files: u64) -> Self {
        let a_port = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OWN_FILES) / 2;
        // Surplus ones are a courtesy.
        self.surplus_connections = self.surplus_connections.min(a_port / 4);
        self.connections = self.connections.min(a_port - self.surplus_connections).max(1);
        self
    }
}

/// What we open besides connections of clients: logs, certificates, watches.
const OWN_FILES: usize = 64;

/// The longest head of an HTTP/1.1 request or header list of an HTTP/2 one: ours are below 1 KiB.
pub const HEAD: usize = 16 * KIB;

/// Streams at once on an HTTP/2 connection: as many as Go's clients start with; one connection is not all of a server.
pub const STREAMS: u32 = 100;

/// What an HTTP/2 client may send ahead on one stream: more than a usual body, so that it never waits for us.
pub const STREAM_WINDOW: u32 = 256 * KIB as u32;

/// What an HTTP/2 client may send ahead in all: bounds what one connection can make us buffer.
pub const CONNECTION_WINDOW: u32 = MIB as u32;

/// HTTP/2 streams reset by the peer before we took them, as h2 chose after CVE-2023-44487 (rapid reset).
pub const PENDING_RESETS: usize = 20;

/// HTTP/2 streams that we reset because of the peer's faults, after which it is cut off: as for rapid resets, a peer in
/// good faith has none.
pub const LOCAL_RESETS: usize = 64;

/// Connections that the kernel keeps for us until they are accepted: a restarted control plane comes back all at once.
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
            (limits.connections, limits.surplus_connections)
        };
        assert_eq!(fitting(u64::MAX), (2_560, 64));
        assert_eq!(fitting(8_192), (2_560, 64));
        assert_eq!(fitting(1_024), (416, 64));
        assert_eq!(fitting(128), (24, 8));
        assert_eq!(fitting(0), (1, 0));
    }
}
