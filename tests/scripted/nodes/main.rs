//! A primary and a secondary, their protocol, link and arbiter, with a scripted guest: everything but the processor is real.

mod going_back;
#[path = "../guests.rs"]
mod guests;
mod healing;
mod lab;
mod policies;
mod relay;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use echovisor_log::{
    arbiter::Mode,
    link::{LinkError, RefuseCode, dial, greet},
};
use echovisor_machine::{
    Memory, PageSet,
    cpu::{Cpu, CpuError, CpuState, Exit, Kick, scripted::ScriptedCpu},
};
use echovisor_recorder::{Ended, primary};
use echovisor_replayer::secondary;
use echovisor_tests::{scripted, wait_for};
use vm_memory::{Bytes, GuestAddress};

use crate::{
    guests::Said,
    lab::{FIRST, Lab, node},
    relay::Relay,
};

#[test]
fn an_effect_waits_for_the_secondary() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    let relay = Relay::new(lab.path("relay"), lab.path("one"));
    primary.wire.talk(0..5);
    let secondary = lab.secondary("two", lab.address("relay"));
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.wire.talk(5..10);

    relay.hold(true);
    primary.wire.send(10);
    primary.wait_until("holding an effect", |status| status.held > 0);
    assert!(primary.wire.said.is_empty(), "an effect left that nobody has acknowledged");
    relay.hold(false);
    primary.wire.hear(10);
    assert_eq!(lab.record().mode, Mode::Protected(node("two")));
}

#[test]
fn the_secondary_takes_over_and_is_protected_again() {
    let lab = Lab::new();
    let (mut primary, secondary) = lab.pair();
    primary.wire.talk(0..20);
    primary.running.kill();

    let promotion = secondary.promoted();
    assert_eq!(promotion.record, lab.record());
    assert_eq!((promotion.record.term, promotion.record.holder), (FIRST.next(), node("two")));
    let mut primary = lab.promote("two", promotion);
    primary.wire.talk(20..40);

    let third = lab.secondary("three", lab.address("two"));
    primary.wait_until_protected();
    third.wait_until_eligible();
    primary.wire.talk(40..50);
    primary.running.kill();
    let mut primary = lab.promote("three", third.promoted());
    primary.wire.talk(50..60);
}

/// Frames that only the old primary had seen are lost with it, as on any network. Up to there every frame is answered, by the
/// one primary or by the other or by both, and in order.
#[test]
fn no_effect_is_lost_between_two_primaries() {
    let lab = Lab::new();
    let (mut primary, secondary) = lab.pair();
    const SENT: u64 = 500;
    (0..SENT).for_each(|number| primary.wire.send(number));
    primary.wire.hear(50);
    let said = primary.wire.said.clone();
    primary.running.kill();
    let last = said.try_iter().last().map_or(50, |said| number(&said));

    let mut primary = lab.promote("two", secondary.promoted());
    primary.wire.send(SENT);
    let mut answers = Vec::new();
    wait_for("the new primary's first own answer", || {
        answers.extend(primary.wire.said.try_iter().map(|said| number(&said)));
        if answers.ends_with(&[SENT]) { Ok(()) } else { Err(format!("{answers:?}")) }
    });
    answers.pop();
    assert!(answers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{answers:?}");
    assert!(
        answers.first().is_none_or(|first| *first <= last + 1),
        "between {last} and {answers:?} answers are lost"
    );
    assert!(
        answers.last().is_none_or(|newest| *newest >= last),
        "{last} was said, but only {answers:?} are known"
    );
}

/// The number of the frame that this echoes.
fn number(said: &Said) -> u64 {
    match said {
        Said::Frame(frame) => u64::from_le_bytes(frame[14..22].try_into().expect("eight bytes")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cut_link_is_no_death() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    let relay = Relay::new(lab.path("relay"), lab.path("one"));
    let secondary = lab.secondary("two", lab.address("relay"));
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    for round in 0..10 {
        primary.wire.send(2 * round);
        relay.cut();
        primary.wire.hear(2 * round);
        primary.wire.talk(2 * round + 1..2 * round + 2);
    }
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    assert_eq!((lab.record().term, lab.record().mode), (FIRST, Mode::Protected(node("two"))));
    primary.running.kill();
    lab.promote("two", secondary.promoted()).wire.talk(20..25);
}

#[test]
fn without_its_secondary_the_primary_goes_on_when_the_arbiter_agrees() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    let secondary = lab.secondary("two", lab.address("one"));
    primary.wait_until_protected();
    lab.arbiter.set_broken(true);
    secondary.running.kill();
    primary.wire.send(0);
    primary.wait_until("asking", |status| status.mode == "leaving" && status.held > 0);
    assert!(primary.wire.said.is_empty(), "an effect left though the arbiter has not agreed");
    lab.arbiter.set_broken(false);
    primary.wire.hear(0);
    assert_eq!(lab.record().mode, Mode::Solo);
    primary.wire.talk(1..5);

    let _next = lab.secondary("three", lab.address("one"));
    primary.wait_until_protected();
    primary.wire.talk(5..10);
}

#[test]
fn stop_ends_the_guest_everywhere() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    let secondary = lab.secondary("two", lab.address("one"));
    primary.wait_until_protected();
    primary.wire.talk(0..5);
    primary.stop();
    let outcome = primary.running.finish().expect("a proper end");
    assert!(matches!(outcome, primary::Outcome::Ended(Ended::Stopped)), "{outcome:?}");
    assert!(matches!(secondary.running.finish(), Ok(secondary::Outcome::Ended(_))));
    assert_eq!(lab.record().mode, Mode::Ended);
}

#[test]
fn a_second_secondary_is_refused_and_disturbs_nobody() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    let secondary = lab.secondary("two", lab.address("one"));
    primary.wait_until_protected();
    let (address, hello) = (lab.address("one"), lab::hello("three"));
    let greeting = async {
        let mut link = dial(&address, None, Duration::from_secs(10)).await?;
        greet(&mut link, &hello, Duration::from_secs(10)).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(greeting) {
        Err(LinkError::Refused { code: RefuseCode::Busy, .. }) => {}
        other => panic!("{other:?}"),
    }
    primary.wire.talk(0..5);
    primary.wait_until_protected();
    secondary.wait_until_eligible();
}

/// Connections that say nothing, nonsense, or a proper hello and then nothing more.
#[test]
fn who_stalls_or_talks_nonsense_holds_up_nobody() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    primary.wire.talk(0..3);
    let silent = UnixStream::connect(lab.path("one")).expect("a listening primary");
    let mut talker = UnixStream::connect(lab.path("one")).expect("a listening primary");
    talker.write_all(&[0xff; 4096]).expect("the socket takes it");
    let mut rest = Vec::new();
    // The primary hangs up on it; whether it says why is its own affair.
    let _ = talker.read_to_end(&mut rest);

    // A joiner that never asks for its state.
    let (address, hello) = (lab.address("one"), lab::hello("three"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stalled = runtime.block_on(async {
        let mut link = dial(&address, None, Duration::from_secs(10)).await.expect("a primary");
        greet(&mut link, &hello, Duration::from_secs(10)).await.expect("a welcome");
        link
    });
    primary.wait_until("joined", |status| status.mode == "joining");
    primary.wire.talk(3..30);
    runtime.block_on(async { drop(stalled) });
    primary.wait_until("alone again", |status| status.mode == "solo");

    let secondary = lab.secondary("two", lab.address("one"));
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.wire.talk(30..40);
    drop(silent);
}

/// An idle guest writes no log; its secondary is fit all the same.
#[test]
fn an_idle_guest_is_protected_too() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    primary.wire.talk(0..5);
    let secondary = lab.secondary("two", lab.address("one"));
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.running.kill();
    lab.promote("two", secondary.promoted()).wire.talk(5..10);
}

/// The roles are swapped without a death: the old primary halts, and the new one goes on where it stood.
#[test]
fn a_guest_is_handed_over() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    assert_eq!(primary.hand_over(), Err("the primary has no secondary"));
    primary.wire.talk(0..5);
    let secondary = lab.secondary("two", lab.address("one"));
    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.wire.talk(5..10);
    assert_eq!(primary.hand_over(), Ok(()));
    let mut new = lab.promote("two", secondary.promoted());
    new.wire.talk(10..15);
    let end = primary.running.finish();
    assert!(matches!(end, Ok(primary::Outcome::Fenced { record, .. }) if record == lab.record()), "{end:?}");
    assert_eq!(lab.record().term, FIRST.next());
}

/// A secondary whose memory goes bad is found out, and given what is right again: it tells what was wrong, and protects the
/// guest as before.
#[test]
fn a_secondary_that_diverges_is_healed() {
    let lab = Lab::new();
    let mut primary = lab.primary("one");
    let secondary = lab.secondary_with("two", lab.address("one"), Rotten::make);
    primary.wait_until_protected();
    // The digest is compared at a checkpoint, of which each is this many frames away from the next at most.
    let mut number = 0;
    let status = wait_for("the divergence to be healed", || {
        primary.wire.talk(number..number + 20);
        number += 20;
        let status = secondary.status();
        if status.last_divergence.is_some() { Ok(status) } else { Err(format!("{status:?}")) }
    });
    let report = status.last_divergence.expect("it is there");
    assert!(report.is_exact(), "{report}");
    assert!(report.fields.is_empty() && !report.is_benign() && !report.is_overwritten(), "{report}");
    let [page] = &report.memory.listed[..] else { panic!("{report}") };
    assert_eq!((page.page, page.count, &page.bytes[..]), (0x700, 1, &[(0, 0, 1)][..]), "{report}");
    assert_eq!((primary.status().divergences, status.divergences), (1, 1));

    primary.wait_until_protected();
    secondary.wait_until_eligible();
    primary.wire.talk(number..number + 40);
    primary.running.kill();
    let mut primary = lab.promote("two", secondary.promoted());
    primary.wire.talk(number + 40..number + 50);
}

/// A processor in bad memory: after some exits a byte changes that the guest does not use. Once, whatever comes later.
struct Rotten {
    cpu: ScriptedCpu,
    memory: Memory,
    exits: u32,
}

static ROTTED: AtomicBool = AtomicBool::new(false);

impl Rotten {
    const EXITS: u32 = 60;

    fn make(memory: &Memory) -> Result<Rotten, CpuError> {
        Ok(Rotten { cpu: scripted::processor(memory)?, memory: memory.clone(), exits: 0 })
    }
}

impl Cpu for Rotten {
    fn enter(&mut self) -> Result<Exit<'_>, CpuError> {
        self.exits += 1;
        if self.exits == Self::EXITS && !ROTTED.swap(true, Ordering::SeqCst) {
            self.memory.mmap().write_obj(1_u8, GuestAddress(0x70_0000)).expect("an address in RAM");
        }
        self.cpu.enter()
    }

    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError> {
        self.cpu.complete()
    }

    fn kicker(&self) -> Box<dyn Kick> {
        self.cpu.kicker()
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        self.cpu.save()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.cpu.restore(state)
    }

    fn track_writes(&mut self) -> Result<(), CpuError> {
        self.cpu.track_writes()
    }

    fn take_written(&mut self, pages: &mut PageSet) -> Result<(), CpuError> {
        self.cpu.take_written(pages)
    }
}
