//! A secondary whose state went bad when its primary dies: where everything that has left is held here, it goes back to its last
//! verified state and takes over; where the primary has gone on alone, it does not.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use echovisor_log::arbiter::Mode;
use echovisor_machine::{
    Memory, PageSet,
    cpu::{Cpu, CpuError, CpuState, Exit, Kick, scripted::ScriptedCpu},
};
use echovisor_replayer::Spoil;
use echovisor_tests::{scripted, wait_for};
use tokio::sync::oneshot;

use crate::{
    FIRST,
    guests::Said,
    lab::{Lab, Primary, Secondary, node},
    number,
    relay::Relay,
};

/// Positions between checkpoints.
const CADENCE: u64 = 20;

fn spoil<C: Send + 'static>(secondary: &Secondary<C>, spoil: Spoil) {
    let (reply, done) = oneshot::channel();
    secondary.spoil(spoil, reply);
    assert!(done.blocking_recv().expect("a living node"), "there is a machine");
}

/// Sends frames until the secondary has found out that its state is bad, and the primary cannot let anything out any more.
fn work_until_diverged(primary: &mut Primary, secondary: &Secondary<ScriptedCpu>, mut next: u64) -> u64 {
    wait_for("a divergence", || {
        primary.wire.send(next);
        next += 1;
        let status = secondary.status();
        if status.divergences == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    });
    primary.wait_until("asking whether it may go on alone", |status| status.mode == "leaving");
    next
}

/// What `said` tells is one course, whose answers follow one another from what was known before.
fn assert_nothing_is_lost(before: &flume::Receiver<Said>, mut primary: Primary, next: u64) {
    let last = before.try_iter().last().map(|said| number(&said));
    primary.wire.send(next);
    let mut answers = Vec::new();
    wait_for("the new primary's first own answer", || {
        answers.extend(primary.wire.said.try_iter().map(|said| number(&said)));
        if answers.ends_with(&[next]) { Ok(()) } else { Err(format!("{answers:?}")) }
    });
    answers.pop();
    assert!(answers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{answers:?}");
    if let Some(last) = last {
        assert!(answers.first().is_none_or(|first| *first <= last + 1), "{last}, {answers:?}");
        assert!(answers.last().is_none_or(|newest| *newest >= last), "{last}, {answers:?}");
    }
    primary.wire.talk(next + 1..next + 20);
}

/// The primary dies while it asks whether it may go on without a secondary that has diverged: nothing has left that this does
/// not hold.
fn takes_over_after(fault: Spoil) {
    let lab = Lab::with_checkpoints(CADENCE);
    let (mut primary, secondary) = lab.pair();
    primary.wire.talk(0..30);

    lab.arbiter.set_broken(true);
    spoil(&secondary, fault);
    let mut next = work_until_diverged(&mut primary, &secondary, 30);
    assert!(!secondary.status().eligible);
    // More of the log comes in, and waits for whoever is able to execute it.
    (0..50).for_each(|more| primary.wire.send(next + more));
    next += 50;
    let watermark = primary.status().watermark;
    secondary.wait_until("holding more", |status| status.watermark >= watermark);
    let said = primary.wire.said.clone();
    primary.running.kill();
    secondary.wait_until("back at a verified state", |status| {
        status.mode == "going back" || status.mode == "taking over"
    });
    lab.arbiter.set_broken(false);
    let promotion = secondary.promoted();
    assert_eq!((promotion.record.term, promotion.record.holder), (FIRST.next(), node("two")));
    assert_nothing_is_lost(&said, lab.promote("two", promotion), next);
}

#[test]
fn a_register_went_bad_and_the_primary_dies() {
    takes_over_after(Spoil::Register { number: 3, bit: 7 });
}

#[test]
fn a_device_went_bad_and_the_primary_dies() {
    takes_over_after(Spoil::Device { bit: 2 });
}

/// The primary has gone on alone, and what it said since is held by nobody else: a past that was verified is still the past.
#[test]
fn who_was_left_behind_does_not_go_back() {
    let lab = Lab::with_checkpoints(CADENCE);
    let mut primary = lab.primary("one");
    let relay = Relay::new(lab.path("relay"), lab.path("one"));
    let secondary = lab.secondary("two", lab.address("relay"));
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.wire.talk(0..30);

    lab.arbiter.set_broken(true);
    spoil(&secondary, Spoil::Device { bit: 2 });
    let next = work_until_diverged(&mut primary, &secondary, 30);
    // The state with which it would be healed does not reach it.
    relay.hold(true);
    lab.arbiter.set_broken(false);
    primary.wire.hear(next - 1);
    primary.wire.talk(next..next + 10);
    assert_eq!(lab.record().mode, Mode::Solo);
    primary.running.kill();
    relay.cut();

    secondary.wait_until("joining anew", |status| status.mode == "dialling");
    assert_eq!((lab.record().term, lab.record().holder), (FIRST, node("one")));
    secondary.running.kill();
}

/// The primary is dead, and all of its log is here, when the secondary comes to where its own state is bad.
#[test]
fn the_state_is_found_bad_in_the_takeover() {
    let lab = Lab::with_checkpoints(CADENCE);
    let mut primary = lab.primary("one");
    let secondary = lab.secondary_with("two", lab.address("one"), Stalling::make);
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.wire.talk(0..30);

    STALLED.store(true, Ordering::SeqCst);
    // Behind the next checkpoint; the one after that is the first to show it.
    spoil(&secondary, Spoil::Device { bit: 2 });
    let next = 30 + 5 * CADENCE;
    primary.wire.talk(30..next);
    let said = primary.wire.said.clone();
    primary.running.kill();
    wait_for("the arbiter's word", || match lab.record() {
        record if record.holder == node("two") => Ok(()),
        record => Err(format!("{record:?}")),
    });
    STALLED.store(false, Ordering::SeqCst);
    assert_nothing_is_lost(&said, lab.promote("two", secondary.promoted()), next);
}

/// A processor that waits before each entry while it is stalled.
struct Stalling(ScriptedCpu);

static STALLED: AtomicBool = AtomicBool::new(false);

impl Stalling {
    fn make(memory: &Memory) -> Result<Stalling, CpuError> {
        scripted::processor(memory).map(Stalling)
    }
}

impl Cpu for Stalling {
    fn enter(&mut self) -> Result<Exit<'_>, CpuError> {
        while STALLED.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.0.enter()
    }

    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError> {
        self.0.complete()
    }

    fn kicker(&self) -> Box<dyn Kick> {
        self.0.kicker()
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        self.0.save()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.0.restore(state)
    }

    fn track_writes(&mut self) -> Result<(), CpuError> {
        self.0.track_writes()
    }

    fn take_written(&mut self, pages: &mut PageSet) -> Result<(), CpuError> {
        self.0.take_written(pages)
    }
}
