//! Under every policy the guest is protected, taken over, joined anew, handed over and healed.

use std::time::Duration;

use echovisor_machine::cpu::scripted::programs::{ECHO_FRAMES, THOUGHT, ponder};
use echovisor_recorder::Policy;
use echovisor_replayer::Spoil;
use echovisor_tests::wait_for;
use tokio::sync::oneshot;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    guests::Said,
    lab::{FIRST, Lab, Primary},
    relay::Relay,
};

/// Those under which a secondary is given states, not events.
const OF_STATES: [Policy; 2] = [Policy::Checkpoint { epoch: Duration::from_millis(5) }, Policy::Kemari];

/// Positions between checkpoints: few, so that a pass over all of the memory takes not long.
const CADENCE: u64 = 20;

/// Steps of a guest that computes for some dozens of milliseconds.
const LONG: u64 = 500_000;

#[test]
fn who_holds_states_takes_over_and_is_protected_again() {
    for policy in OF_STATES {
        let lab = Lab::new().under(policy);
        let mut primary = lab.primary("one");
        primary.wire.talk(0..5);
        assert_eq!(primary.status().deltas, 0, "nobody needs any");
        let secondary = lab.secondary("two", lab.address("one"));
        primary.wait_until_protected();
        secondary.wait_until_eligible();
        primary.wire.talk(5..25);
        assert!(primary.status().deltas >= 20, "{policy:?}: each answer waits for a delta");
        primary.running.kill();

        let promotion = secondary.promoted();
        let answered: u64 = promotion.machine.memory().mmap().read_obj(GuestAddress(ECHO_FRAMES)).unwrap();
        assert_eq!(answered, 25, "{policy:?}");
        let mut primary = lab.promote("two", promotion);
        primary.wire.talk(25..40);

        let third = lab.secondary("three", lab.address("two"));
        primary.wait_until_protected();
        third.wait_until_eligible();
        primary.wire.talk(40..50);
        primary.running.kill();
        let mut primary = lab.promote("three", third.promoted());
        primary.wire.talk(50..60);
        assert_eq!(lab.record().term, FIRST.next().next());
    }
}

/// What an answer says has happened has happened for the successor, too.
#[test]
fn no_answer_is_ahead_of_the_state_that_is_held() {
    for policy in OF_STATES {
        let lab = Lab::new().under(policy);
        let (mut primary, secondary) = lab.pair();
        (0..300).for_each(|number| primary.wire.send(number));
        primary.wire.hear(50);
        let said = primary.wire.said.clone();
        primary.running.kill();
        let answered = 51 + said.try_iter().count() as u64;

        let promotion = secondary.promoted();
        let held: u64 = promotion.machine.memory().mmap().read_obj(GuestAddress(ECHO_FRAMES)).unwrap();
        assert!(held >= answered, "{policy:?}: {answered} were answered, {held} are known");
        lab.promote("two", promotion).wire.talk(300..310);
    }
}

#[test]
fn an_answer_waits_for_the_delta_behind_it() {
    for policy in OF_STATES {
        let lab = Lab::new().under(policy);
        let mut primary = lab.primary("one");
        let relay = Relay::new(lab.path("relay"), lab.path("one"));
        let secondary = lab.secondary("two", lab.address("relay"));
        primary.wait_until_protected();
        secondary.wait_until_eligible();
        primary.wire.talk(0..5);

        relay.hold(true);
        primary.wire.send(5);
        primary.wait_until("holding an effect", |status| status.held > 0);
        assert!(primary.wire.said.is_empty(), "{policy:?}: an effect left that nobody has acknowledged");
        relay.hold(false);
        primary.wire.talk(6..10);
    }
}

#[test]
fn a_guest_is_handed_over() {
    for policy in OF_STATES {
        let lab = Lab::new().under(policy);
        let (mut primary, secondary) = lab.pair();
        primary.wire.talk(0..10);
        assert_eq!(primary.hand_over(), Ok(()), "{policy:?}");
        let mut new = lab.promote("two", secondary.promoted());
        new.wire.talk(10..15);
    }
}

#[test]
fn a_state_that_goes_bad_is_healed() {
    for policy in OF_STATES {
        let lab = Lab::with_checkpoints(CADENCE).under(policy);
        let (mut primary, secondary) = lab.pair();
        let (reply, done) = oneshot::channel();
        // Nobody writes there, so no delta has it.
        secondary.spoil(Spoil::Memory { address: 0x60_0000, bit: 3 }, reply);
        assert_eq!(done.blocking_recv(), Ok(true));
        let mut sent = 0;
        wait_for("the difference to be found", || {
            primary.wire.talk(sent..sent + 1);
            sent += 1;
            let found = secondary.status().divergences;
            if found == 1 { Ok(()) } else { Err(format!("{found} differences behind {sent} frames")) }
        });
        secondary.wait_until_eligible();
        primary.wait_until_protected();
        primary.running.kill();
        lab.promote("two", secondary.promoted()).wire.talk(sent..sent + 10);
    }
}

/// What a guest prints that computes for long.
fn letters(primary: &Primary, count: usize) -> Vec<u8> {
    let mut letters = Vec::new();
    wait_for("the guest's letters", || {
        letters.extend(primary.wire.said.try_iter().map(|said| match said {
            Said::Console(bytes) => bytes[0],
            other => panic!("{other:?}"),
        }));
        if letters.len() >= count { Ok(()) } else { Err(format!("{letters:?}")) }
    });
    letters
}

/// A guest that makes no exit is called out again and again, under whatever policy, and goes on exactly there when it is taken over.
#[test]
fn a_guest_that_computes_is_protected() {
    let replay = Policy::Replay { quantum: Duration::from_millis(2) };
    for policy in [replay, OF_STATES[0], OF_STATES[1]] {
        let lab = Lab::new().under(policy);
        let primary = lab.primary_of("one", &ponder(LONG));
        letters(&primary, 2);
        assert_eq!(primary.status().deltas, 0, "nobody needs any");
        let secondary = lab.secondary("two", lab.address("one"));
        primary.wait_until_protected();
        secondary.wait_until_eligible();
        letters(&primary, 3);
        let status = primary.wait_until("called out", |status| status.deltas > 3);
        assert_eq!(status.divergences, 0, "{policy:?}");
        let compared = secondary.status().checkpoints;
        secondary.wait_until("compared", |status| status.checkpoints > compared);
        primary.running.kill();

        let promotion = secondary.promoted();
        let thought: u64 = promotion.machine.memory().mmap().read_obj(GuestAddress(THOUGHT)).unwrap();
        assert_ne!(thought, 0);
        letters(&lab.promote("two", promotion), 3);
    }
}
