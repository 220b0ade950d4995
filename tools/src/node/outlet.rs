//! Where released effects go: frames to the network, console output to stdout.

use std::{
    io::{Write, stdout},
    thread,
    time::Duration,
};

use echovisor_event::Effect;
use echovisor_recorder::{gate::Outlet, port::Port};

/// Pieces of console output that may wait for stdout. What a reader does not take in time is lost, so that it cannot hold
/// up the guest's packets.
const CONSOLE_DEPTH: usize = 4096;

/// How long the rest of the console output may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The outlet of a guest whose network is `port`.
#[must_use]
pub fn outlet(port: Option<Port>) -> Box<dyn Outlet> {
    Box::new(Host { port, failed: false, console: Console::new() })
}

struct Host {
    port: Option<Port>,
    /// The network failed, and that was said.
    failed: bool,
    console: Console,
}

impl Outlet for Host {
    fn release(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Frame(frame) => {
                if let Some(Err(error)) = self.port.as_ref().map(|port| port.send(frame))
                    && !std::mem::replace(&mut self.failed, true)
                {
                    tracing::error!("the guest's frames are lost: {error}");
                }
            }
            Effect::Console(bytes) => self.console.write(bytes),
            Effect::PowerOff(code) => tracing::info!("the guest has powered itself off with code {code}"),
        }
    }
}

/// A thread that writes to stdout.
struct Console {
    bytes: Option<flume::Sender<Box<[u8]>>>,
    done: flume::Receiver<()>,
}

impl Console {
    fn new() -> Console {
        let (bytes, receiver) = flume::bounded::<Box<[u8]>>(CONSOLE_DEPTH);
        let (finished, done) = flume::bounded(0);
        thread::spawn(move || {
            for bytes in receiver {
                let mut stdout = stdout().lock();
                // A console that nobody reads any more is no reason to stop the guest.
                let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            }
            drop(finished);
        });
        Console { bytes: Some(bytes), done }
    }

    fn write(&self, bytes: &[u8]) {
        if let Some(sender) = &self.bytes {
            let _ = sender.try_send(bytes.into());
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.bytes = None;
        // Ends with an error as soon as the thread does.
        let _ = self.done.recv_timeout(LAST_WORDS);
    }
}
