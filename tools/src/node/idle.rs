//! The network of a node that does not run the guest.

use std::{
    mem,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use echovisor_event::limits::{BURST_MAX, FRAME_MAX};
use echovisor_recorder::port::Port;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use super::announcement;
use crate::failure::Failure;

/// Frames that are kept for a guest that is elsewhere. What comes beyond that its senders send again.
const STRAYS: usize = 1024;

/// How long to wait for the guest to be announced elsewhere: after that its senders have sent again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ethernet's types of IPv4 and IPv6.
const IP: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// Frames that came for a guest while it was handed over to another node. They wait until that node's announcement is heard,
/// by which switches, too, have learned where the guest is, and are sent on then as a router does: from an address of this
/// node's own, so that no switch believes that their senders are here. Else each would cost its sender the time until its own TCP
/// sends it again.
pub struct Strays {
    guest: [u8; 6],
    own: [u8; 6],
    held: Vec<Box<[u8]>>,
    until: Instant,
}

impl Strays {
    /// Frames for the guest with the address `guest`, to be sent on from the address `own`.
    #[must_use]
    pub fn new(guest: [u8; 6], own: [u8; 6]) -> Strays {
        Strays { guest, own, held: Vec::new(), until: Instant::now() + PATIENCE }
    }

    /// Takes the next frame that came. Once the guest was announced elsewhere: what is to be sent on.
    fn take(&mut self, frame: &[u8]) -> Option<Vec<Box<[u8]>>> {
        // An announcement is padded.
        if frame.starts_with(&announcement(self.guest)[..42]) {
            return Some(mem::take(&mut self.held));
        }
        let is_ip = frame.get(12..14).is_some_and(|kind| IP.iter().any(|ip| ip == kind));
        if frame.starts_with(&self.guest) && is_ip && self.held.len() < STRAYS {
            let mut frame: Box<[u8]> = frame.into();
            frame[6..12].copy_from_slice(&self.own);
            self.held.push(frame);
        }
        None
    }
}

/// Throws away what comes in, but for `strays`, until the result is dropped: a secondary's network must not fill with the past,
/// nor hold anybody up.
///
/// # Errors
/// If the host has no resources left for that.
pub fn drain(port: Port, mut strays: Option<Strays>) -> Result<Drain, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new("cannot watch the network", "see whether `ulimit -n` is reached").because(error)
    };
    let descriptor = port.as_fd().try_clone_to_owned().map_err(failed)?;
    // SAFETY: the descriptor is owned by what it is registered with, and stays open as long.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    let watched = watched.map_err(|error| failed(error.into()))?;
    let task = tokio::spawn(async move {
        while let Ok(mut ready) = watched.readable().await {
            // A network that is gone is noticed at the takeover.
            match drain_burst(&port, &mut strays) {
                Ok(true) => ready.clear_ready(),
                Ok(false) => tokio::task::yield_now().await,
                Err(_) => return,
            }
        }
    });
    Ok(Drain(task))
}

/// Takes what has come in, at most a burst of it; whether that was all.
fn drain_burst(port: &Port, strays: &mut Option<Strays>) -> std::io::Result<bool> {
    let Some(waiting) = strays.as_mut().filter(|strays| Instant::now() < strays.until) else {
        *strays = None;
        return port.drain();
    };
    let mut frame = [0; FRAME_MAX];
    for _ in 0..BURST_MAX {
        let Some(length) = port.receive(&mut frame)? else { return Ok(true) };
        if let Some(frames) = waiting.take(&frame[..length]) {
            tracing::info!("{} frames came for the guest meanwhile, and are sent on", frames.len());
            *strays = None;
            frames.iter().try_for_each(|frame| port.send(frame))?;
            return Ok(false);
        }
    }
    Ok(false)
}

/// Ends draining when it is dropped.
pub struct Drain(JoinHandle<()>);

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn frame(to: [u8; 6], kind: [u8; 2], rest: &[u8]) -> Vec<u8> {
        [&to[..], &CLIENT, &kind, rest].concat()
    }

    #[test]
    fn what_came_for_the_guest_waits_for_its_announcement_and_is_sent_on_from_here() {
        let mut strays = Strays::new(GUEST, OWN);
        assert!(strays.take(&frame(GUEST, IP[0], b"one")).is_none());
        assert!(strays.take(&frame(CLIENT, IP[0], b"another's")).is_none());
        assert!(strays.take(&frame(GUEST, [0x08, 0x06], b"who has")).is_none());
        assert!(strays.take(&announcement(CLIENT)).is_none());
        assert!(strays.take(&[]).is_none());
        let sent_on = strays.take(&announcement(GUEST)).expect("it was announced");
        let expected = [&GUEST[..], &OWN, &IP[0], b"one"].concat().into_boxed_slice();
        assert_eq!(sent_on, [expected]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut strays = Strays::new(GUEST, OWN);
        for _ in 0..2 * STRAYS {
            assert!(strays.take(&frame(GUEST, IP[1], b"")).is_none());
        }
        assert_eq!(strays.take(&announcement(GUEST)).map(|frames| frames.len()), Some(STRAYS));
    }
}
