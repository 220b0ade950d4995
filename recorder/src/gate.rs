//! The commit gate: the only place where an effect leaves.
//!
//! An effect made by the step that led to position E depends on events before E. It is *held* until all who are required hold
//! the log up to the watermark E, is then *acknowledged*, and is *released* when it is handed to the outside, in order.
//! Required are the secondary's memory, while the guest is protected, and this node's disk, if that was asked for. The first
//! changes only through [`Gate::protect`] and [`Gate::unprotect`], which the arbiter's answer must precede.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use echovisor_event::{Effect, Position};
use echovisor_log::link::boot_time;

/// Most bytes of effects that wait, with what it takes to keep them, as seen by the guest's thread: beyond this it waits,
/// and so does the guest.
pub const HELD_MAX: usize = 16 << 20;

/// Where released effects go.
pub trait Outlet: Send {
    /// Hands an effect to the outside. What the outside does not take is lost, as on any network.
    fn release(&mut self, effect: Effect<'_>);
}

/// What has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames released.
    pub frames: u64,
    /// Bytes of frames released.
    pub frame_bytes: u64,
    /// Effects that wait.
    pub held: usize,
}

/// The commit gate. The guest's thread brings effects; whoever learns of an acknowledgement releases them.
pub struct Gate {
    inner: Mutex<Inner>,
    room: Condvar,
    /// What the lock guards says the same; this one costs the guest's thread nothing to read.
    awaits_log: AtomicBool,
}

struct Inner {
    outlet: Box<dyn Outlet>,
    clock: Box<dyn Fn() -> Duration + Send>,
    /// This node's disk is required, and holds the log up to this watermark.
    on_disk: Option<Position>,
    /// The secondary's acknowledgement is required.
    protected: bool,
    /// What it has acknowledged; `None` before it acknowledged anything.
    acknowledged: Option<Position>,
    /// Until when the secondary has promised not to take over, on the gate's clock.
    lease: Option<Duration>,
    /// Nothing is released any more: another primary runs the guest.
    fenced: bool,
    held: VecDeque<Held>,
    /// The bytes of all held effects, in order.
    bytes: VecDeque<u8>,
    /// One effect in one piece.
    scratch: Vec<u8>,
    counters: Counters,
    /// Where the newest effect was made that was released.
    newest: Position,
    /// A power-off was released.
    powered_off: Option<u32>,
}

/// An effect that waits; its bytes are in the queue beside.
struct Held {
    at: Position,
    kind: HeldKind,
}

#[derive(Clone, Copy)]
enum HeldKind {
    Frame(usize),
    Console(usize),
    PowerOff(u32),
}

impl Gate {
    /// A gate that requires nothing. Its lease is measured on CLOCK_BOOTTIME, which also runs while the host sleeps.
    pub fn new(outlet: Box<dyn Outlet>) -> Gate {
        Gate::with_clock(outlet, boot_time)
    }

    /// The same, on another clock.
    pub fn with_clock(outlet: Box<dyn Outlet>, clock: impl Fn() -> Duration + Send + 'static) -> Gate {
        let inner = Inner {
            outlet,
            clock: Box::new(clock),
            on_disk: None,
            protected: false,
            acknowledged: None,
            lease: None,
            fenced: false,
            held: VecDeque::new(),
            bytes: VecDeque::new(),
            scratch: Vec::new(),
            counters: Counters::default(),
            newest: Position::BOOT,
            powered_off: None,
        };
        Gate { inner: Mutex::new(inner), room: Condvar::new(), awaits_log: AtomicBool::new(false) }
    }

    /// Brings an effect made at `at`; positions never fall. It leaves at once if nothing is required of it. Blocks while
    /// too much waits, unless the gate is fenced.
    pub fn pass(&self, at: Position, effect: Effect<'_>) {
        let mut inner = self.lock();
        while inner.held_bytes() >= HELD_MAX && !inner.fenced {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        debug_assert!(inner.held.back().is_none_or(|last| last.at <= at), "effects come in order");
        if inner.held.is_empty() && inner.may_release(at) {
            inner.release(at, effect);
        } else {
            inner.hold(at, effect);
        }
    }

    /// The secondary holds the log up to the watermark `position`. Releases what that was awaited for.
    pub fn acknowledge(&self, position: Position) {
        let mut inner = self.lock();
        inner.acknowledged = inner.acknowledged.max(Some(position));
        inner.release_ready();
        self.room.notify_all();
    }

    /// Requires this node's own disk, from now on and for good: it holds the log up to the watermark `position`.
    pub fn require_disk(&self, position: Position) {
        let mut inner = self.lock();
        inner.on_disk = Some(position);
        self.awaits_log.store(true, Ordering::Relaxed);
    }

    /// This node's disk holds the log up to the watermark `position`. Releases what that was awaited for.
    pub fn written(&self, position: Position) {
        let mut inner = self.lock();
        inner.on_disk = inner.on_disk.map(|on_disk| on_disk.max(position));
        inner.release_ready();
        self.room.notify_all();
    }

    /// Requires the acknowledgement of a secondary, which has acknowledged nothing yet and promises until `lease` not to take
    /// over, from now on and of what waits. Returns the position of the newest effect that has left already.
    pub fn protect(&self, lease: Duration) -> Position {
        let mut inner = self.lock();
        inner.protected = true;
        self.awaits_log.store(true, Ordering::Relaxed);
        inner.acknowledged = None;
        inner.lease = Some(lease);
        inner.newest
    }

    /// Requires no secondary's acknowledgement any more. That is only right after the arbiter has agreed.
    pub fn unprotect(&self) {
        let mut inner = self.lock();
        inner.protected = false;
        self.awaits_log.store(inner.on_disk.is_some(), Ordering::Relaxed);
        inner.lease = None;
        inner.release_ready();
        self.room.notify_all();
    }

    /// The secondary has promised not to take over before `lease`. While the guest is protected and the lease has run out,
    /// nothing is released.
    pub fn renew(&self, lease: Duration) {
        let mut inner = self.lock();
        inner.lease = Some(lease);
        inner.release_ready();
        self.room.notify_all();
    }

    /// Another primary runs the guest: nothing leaves any more, now or later.
    pub fn fence(&self) {
        let mut inner = self.lock();
        inner.fenced = true;
        inner.held.clear();
        inner.bytes.clear();
        self.room.notify_all();
    }

    /// Whether effects wait for the log behind them, or did a moment ago.
    #[must_use]
    pub fn awaits_log(&self) -> bool {
        self.awaits_log.load(Ordering::Relaxed)
    }

    /// Whether an effect waits.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// Waits until no effect waits, or nothing may leave any more; for at most `patience`.
    pub fn wait_until_empty(&self, patience: Duration) {
        let wait = self.room.wait_timeout_while(self.lock(), patience, |inner| !inner.held.is_empty());
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// The position up to which every effect has left, if the guest stands at `now`.
    #[must_use]
    pub fn released(&self, now: Position) -> Position {
        match self.lock().held.front() {
            Some(first) => first.at.previous().unwrap_or_default().min(now),
            None => now,
        }
    }

    /// The guest's exit code, once its power-off has left the gate.
    #[must_use]
    pub fn powered_off(&self) -> Option<u32> {
        self.lock().powered_off
    }

    /// What has passed so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let inner = self.lock();
        Counters { held: inner.held.len(), ..inner.counters }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn may_release(&self, at: Position) -> bool {
        let acknowledged = || self.acknowledged.is_some_and(|acknowledged| acknowledged >= at);
        let on_disk = || self.on_disk.is_none_or(|on_disk| on_disk >= at);
        let leased = || self.lease.is_some_and(|lease| (self.clock)() < lease);
        !self.fenced && on_disk() && (!self.protected || acknowledged() && leased())
    }

    /// A guest that writes to its console makes an effect of every byte: what lies around them counts as well.
    fn held_bytes(&self) -> usize {
        self.bytes.len() + self.held.len() * size_of::<Held>()
    }

    fn hold(&mut self, at: Position, effect: Effect<'_>) {
        if self.fenced {
            return;
        }
        let kind = match effect {
            Effect::Frame(bytes) => {
                self.bytes.extend(bytes);
                HeldKind::Frame(bytes.len())
            }
            Effect::Console(bytes) => {
                self.bytes.extend(bytes);
                HeldKind::Console(bytes.len())
            }
            Effect::PowerOff(code) => HeldKind::PowerOff(code),
        };
        self.held.push_back(Held { at, kind });
    }

    fn release_ready(&mut self) {
        while let Some(first) = self.held.front() {
            if !self.may_release(first.at) {
                return;
            }
            let (at, kind) = (first.at, first.kind);
            self.held.pop_front();
            let length = match kind {
                HeldKind::Frame(length) | HeldKind::Console(length) => length,
                HeldKind::PowerOff(_) => 0,
            };
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.clear();
            let (front, back) = self.bytes.as_slices();
            let in_front = front.len().min(length);
            scratch.extend_from_slice(&front[..in_front]);
            scratch.extend_from_slice(&back[..length - in_front]);
            self.bytes.drain(..length);
            let effect = match kind {
                HeldKind::Frame(_) => Effect::Frame(&scratch),
                HeldKind::Console(_) => Effect::Console(&scratch),
                HeldKind::PowerOff(code) => Effect::PowerOff(code),
            };
            self.release(at, effect);
            self.scratch = scratch;
        }
    }

    fn release(&mut self, at: Position, effect: Effect<'_>) {
        self.newest = at;
        match effect {
            Effect::Frame(frame) => {
                self.counters.frames += 1;
                self.counters.frame_bytes += frame.len() as u64;
            }
            Effect::Console(_) => {}
            Effect::PowerOff(code) => self.powered_off = Some(code),
        }
        self.outlet.release(effect);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    struct Sink(mpsc::Sender<Vec<u8>>);

    impl Outlet for Sink {
        fn release(&mut self, effect: Effect<'_>) {
            let bytes = match effect {
                Effect::Frame(bytes) | Effect::Console(bytes) => bytes.to_vec(),
                Effect::PowerOff(code) => format!("off {code}").into_bytes(),
            };
            self.0.send(bytes).unwrap();
        }
    }

    fn gate() -> (Gate, mpsc::Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        (Gate::new(Box::new(Sink(sender))), receiver)
    }

    const LONG: Duration = Duration::from_secs(u32::MAX as u64);

    fn frame(gate: &Gate, at: u64, bytes: &[u8]) {
        gate.pass(Position(at), Effect::Frame(bytes));
    }

    #[test]
    fn nothing_required_means_nothing_waits() {
        let (gate, out) = gate();
        frame(&gate, 1, b"a");
        assert_eq!(out.try_recv().unwrap(), b"a");
        assert!(!gate.holds());
    }

    #[test]
    fn an_effect_waits_for_the_log_behind_it_and_no_longer() {
        let (gate, out) = gate();
        gate.protect(LONG);
        frame(&gate, 5, b"five");
        frame(&gate, 5, b"again");
        frame(&gate, 7, b"seven");
        gate.acknowledge(Position(4));
        assert!(out.try_recv().is_err(), "position 5 is not acknowledged");
        gate.acknowledge(Position(6));
        assert_eq!(out.try_iter().collect::<Vec<_>>(), [b"five".to_vec(), b"again".to_vec()]);
        assert_eq!(gate.released(Position(8)), Position(6), "everything before the first that waits");
        gate.acknowledge(Position(7));
        assert_eq!(out.try_recv().unwrap(), b"seven");
        assert_eq!(gate.released(Position(8)), Position(8));
    }

    #[test]
    fn what_must_be_on_disk_waits_for_the_disk_and_for_the_secondary() {
        let (gate, out) = gate();
        gate.require_disk(Position(3));
        assert!(gate.awaits_log());
        frame(&gate, 3, b"three");
        assert_eq!(out.try_recv().unwrap(), b"three", "it was on disk already");
        frame(&gate, 5, b"five");
        gate.acknowledge(Position(9));
        assert!(out.try_recv().is_err(), "only the disk counts");
        gate.written(Position(5));
        assert_eq!(out.try_recv().unwrap(), b"five");

        gate.protect(LONG);
        frame(&gate, 6, b"six");
        gate.written(Position(6));
        assert!(out.try_recv().is_err(), "the secondary counts, too");
        gate.acknowledge(Position(6));
        assert_eq!(out.try_recv().unwrap(), b"six");
        frame(&gate, 7, b"seven");
        gate.acknowledge(Position(7));
        gate.unprotect();
        assert!(out.try_recv().is_err(), "the disk is required for good");
        assert!(gate.awaits_log());
        gate.written(Position(8));
        assert_eq!(out.try_recv().unwrap(), b"seven");
    }

    #[test]
    fn an_old_acknowledgement_does_not_count_for_a_new_peer() {
        let (gate, out) = gate();
        gate.protect(LONG);
        gate.acknowledge(Position(100));
        gate.unprotect();
        gate.protect(LONG);
        frame(&gate, 50, b"x");
        assert!(out.try_recv().is_err());
    }

    #[test]
    fn a_lease_that_ran_out_holds_what_is_acknowledged() {
        let (gate, out) = gate();
        gate.protect(Duration::ZERO);
        gate.acknowledge(Position(9));
        frame(&gate, 9, b"late");
        assert!(out.try_recv().is_err());
        gate.renew(boot_time() + Duration::from_secs(3600));
        assert_eq!(out.try_recv().unwrap(), b"late");
    }

    #[test]
    fn a_fence_is_final() {
        let (gate, out) = gate();
        gate.protect(LONG);
        frame(&gate, 1, b"held");
        gate.fence();
        gate.unprotect();
        frame(&gate, 2, b"later");
        assert!(out.try_recv().is_err());
    }

    #[test]
    fn a_power_off_passes_the_gate_like_any_effect() {
        let (gate, _out) = gate();
        gate.protect(LONG);
        gate.pass(Position(3), Effect::PowerOff(7));
        assert_eq!(gate.powered_off(), None);
        gate.acknowledge(Position(3));
        assert_eq!(gate.powered_off(), Some(7));
    }

    #[test]
    fn the_guest_waits_when_too_much_does() {
        let (gate, out) = gate();
        gate.protect(LONG);
        let gate = Arc::new(gate);
        let guest = {
            let gate = gate.clone();
            std::thread::spawn(move || {
                let frame = vec![0; 9000];
                for at in 0..(HELD_MAX / 9000 + 10) as u64 {
                    gate.pass(Position(at), Effect::Frame(&frame));
                }
            })
        };
        while gate.counters().held * (9000 + size_of::<Held>()) < HELD_MAX {
            std::thread::yield_now();
        }
        assert!(!guest.is_finished());
        gate.acknowledge(Position(u64::MAX));
        guest.join().unwrap();
        assert_eq!(out.try_iter().count(), HELD_MAX / 9000 + 10);
    }
}
