//! The places of a port's connections: the `ConnectionTable` behind a lock, which is held for microseconds and never across an
//! await.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection_table::{Admission, AdmissionVerdict, ConnectionId, ConnectionTable, TableLimits};
use super::limits::Limits;
use crate::telemetry::metrics::{Metrics, ShedReason};

/// The places of a port.
#[derive(Clone)]
pub(crate) struct Places {
    table: Arc<Mutex<ConnectionTable<Arc<Notify>>>>,
    metrics: Arc<Metrics>,
}

/// The place of a connection. Dropping it frees the place.
pub(crate) struct ConnectionPlace {
    places: Places,
    id: ConnectionId,
    /// Notified when the connection has to give way.
    signal: Arc<Notify>,
}

impl Places {
    /// Returns the places of a port, with a share for clients with a certificate if clients may have one.
    pub(crate) fn new(limits: &Limits, knows_certificates: bool, metrics: Arc<Metrics>) -> Self {
        let limits = TableLimits {
            handshakes: limits.handshakes,
            connections: limits.connections,
            certified: if knows_certificates { limits.certified_connections } else { 0 },
            surplus: limits.surplus_connections,
            address: limits.address_connections,
        };
        Self { table: Arc::new(Mutex::new(ConnectionTable::new(limits))), metrics }
    }

    /// Takes a place for a connection whose handshake begins. Returns `None` if the connection has to close.
    pub(crate) fn open(&self, address: IpAddr) -> Option<ConnectionPlace> {
        let signal = Arc::new(Notify::new());
        let (id, admission) = self.table.lock().open(address, signal.clone());
        // Also where there is none: dropping it frees the row.
        let place = ConnectionPlace { places: self.clone(), id, signal };
        self.announce(admission).map(|_| place)
    }

    /// Takes a place for a connection without a handshake. Returns `None` if the connection has to close, or `true` if it is a
    /// surplus one.
    pub(crate) fn open_plain(&self, address: IpAddr) -> Option<(ConnectionPlace, bool)> {
        let signal = Arc::new(Notify::new());
        let (id, admission) = self.table.lock().open_plain(address, signal.clone());
        let place = ConnectionPlace { places: self.clone(), id, signal };
        self.announce(admission).map(|surplus| (place, surplus))
    }

    /// Tells connections that they give way, which loses no request and so sheds none. Returns if the newcomer is a surplus one, or
    /// `None` if it has to close.
    fn announce(&self, admission: Admission<Arc<Notify>>) -> Option<bool> {
        for signal in admission.gave_way {
            signal.notify_one();
        }
        match admission.verdict {
            AdmissionVerdict::Placed => Some(false),
            AdmissionVerdict::Surplus => Some(true),
            AdmissionVerdict::Refused => {
                self.metrics.record_shed(ShedReason::Connections);
                None
            }
        }
    }
}

impl ConnectionPlace {
    /// Records the end of the handshake. Returns as [`Places::open_plain`] does.
    pub(crate) fn handshaken(&self, is_certified: bool) -> Option<bool> {
        let admission = self.places.table.lock().handshaken(self.id, is_certified);
        self.places.announce(admission)
    }

    /// Records that a request is in flight.
    pub(crate) fn busy(&self) {
        self.places.table.lock().busy(self.id);
    }

    /// Records that no request is in flight any more.
    pub(crate) fn idle(&self) {
        self.places.table.lock().idle(self.id);
    }

    /// Returns true if the connection has to give way and no request has begun since.
    pub(crate) fn is_leaving(&self) -> bool {
        self.places.table.lock().is_leaving(self.id)
    }

    /// Waits until the connection has to give way.
    pub(crate) async fn leaving(&self) {
        loop {
            self.signal.notified().await;
            if self.is_leaving() {
                return;
            }
        }
    }

    /// Wakes the connection for another reason than to give way.
    pub(crate) fn signal(&self) -> &Notify {
        &self.signal
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.places.table.lock().closed(self.id);
    }
}
