//! Where released effects go: frames to the network, console output to stdout.

use std::io::{Write, stdout};

use echovisor_event::Effect;
use echovisor_recorder::{gate::Outlet, port::Port};

struct Host {
    port: Option<Port>,
    /// The network failed, and that was said.
    failed: bool,
}

/// The outlet of a guest whose network is `port`.
#[must_use]
pub fn outlet(port: Option<Port>) -> Box<dyn Outlet> {
    Box::new(Host { port, failed: false })
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
            Effect::Console(bytes) => {
                // A console that nobody reads any more is no reason to stop the guest.
                let mut stdout = stdout().lock();
                let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
            }
            Effect::PowerOff(code) => tracing::info!("the guest has powered itself off with code {code}"),
        }
    }
}
