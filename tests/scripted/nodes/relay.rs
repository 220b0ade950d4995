//! A relay between secondary and primary that can hold what passes, and cut connections.

use std::{path::PathBuf, sync::Arc, thread};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// The relay. It ends with the test.
pub(crate) struct Relay {
    orders: Arc<watch::Sender<Orders>>,
}

#[derive(Clone, Copy, Default)]
struct Orders {
    /// Connections of an earlier age are cut.
    age: u64,
    /// Nothing passes.
    holds: bool,
}

impl Relay {
    /// Listens at `here`, and relays to `there`.
    pub(crate) fn new(here: PathBuf, there: PathBuf) -> Relay {
        let orders = Arc::new(watch::Sender::new(Orders::default()));
        let told = orders.clone();
        let (ready, is_ready) = flume::bounded(1);
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = UnixListener::bind(here).expect("a socket of its own");
                ready.send(()).expect("the test waits");
                while let Ok((near, _)) = listener.accept().await {
                    // A primary that is dead is not reached through a relay either.
                    let Ok(far) = UnixStream::connect(&there).await else { return };
                    let (near, far) = (near.into_split(), far.into_split());
                    tokio::spawn(pump(near.0, far.1, told.subscribe()));
                    tokio::spawn(pump(far.0, near.1, told.subscribe()));
                }
            });
        });
        is_ready.recv().expect("the relay listens");
        Relay { orders }
    }

    /// Cuts all connections that there are.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.age += 1);
    }

    /// Lets nothing pass any more, or everything again.
    pub(crate) fn hold(&self, holds: bool) {
        self.orders.send_modify(|orders| orders.holds = holds);
    }
}

/// Moves bytes until the connection is closed or cut.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut orders: watch::Receiver<Orders>) {
    let age = orders.borrow().age;
    let mut cut = orders.clone();
    let moves = async {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            if orders.wait_for(|orders| !orders.holds).await.is_err()
                || to.write_all(&bytes[..length]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = moves => {}
        _ = cut.wait_for(|orders| orders.age != age) => {}
    }
}
