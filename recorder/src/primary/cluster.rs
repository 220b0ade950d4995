//! What a primary has around it besides its guest: a place to be joined at, and an arbiter.

use std::{sync::Arc, time::Duration};

use echovisor_log::{
    arbiter::{Arbiter, Record},
    link::{Hello, Link, Listener, Ours, accept},
};
use tokio::task::JoinSet;

use super::protocol::Timing;

/// How long a connection may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Connections that may be saying who they are at the same time; others wait in the system's queue.
const HANDSHAKES: usize = 8;

/// How long to wait before connections are taken again after that failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where secondaries join, and who decides which node may run the guest.
pub struct Cluster {
    /// Where secondaries join; `None` if the guest shall stay unprotected.
    pub listener: Option<Listener>,
    /// Who decides.
    pub arbiter: Arc<dyn Arbiter>,
    /// The record under which this node runs the guest.
    pub record: Record,
    /// How long things take.
    pub timing: Timing,
}

/// A connection that has said who it is.
pub(super) type Joiner = (Hello, Link);

/// Takes connections and lets them say who they are, each on a task of its own, so that one that is slow holds nobody up.
/// Nobody listens any more when the returned set is dropped.
pub(super) fn listen(listener: Listener, ours: Ours) -> (JoinSet<()>, flume::Receiver<Joiner>) {
    let (sender, joiners) = flume::bounded(1);
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        let places = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let mut link = match listener.accept().await {
                Ok(link) => link,
                Err(error) => {
                    // Out of descriptors, or a connection that was gone again: neither is a reason to stop listening.
                    tracing::warn!("{error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let (ours, sender) = (ours.clone(), sender.clone());
            tokio::spawn(async move {
                match accept(&mut link, &ours, HANDSHAKE).await {
                    // Nobody to take it means that the node is ending.
                    Ok(hello) => drop(sender.send_async((hello, link)).await),
                    Err(error) => tracing::warn!("a connection was refused: {error}"),
                }
                drop(place);
            });
        }
    });
    (listening, joiners)
}
