//! A run that was recorded, encoded, decoded and replayed is the same run; and what is not the same is found.
//!
//! The processor is the scripted one, the rest is the real thing: no `/dev/kvm`, no process, no time.

mod following;
#[path = "../guests.rs"]
mod guests;
mod recording;

use std::convert::Infallible;

use echovisor_event::{Event, Nanos};
use echovisor_log::Record;
use echovisor_machine::{
    Machine, RunError,
    boot::layout::{DOORBELL_PORT, IMAGE_BASE, PCI_WINDOW_BASE},
    cpu::{
        Cpu,
        scripted::{
            Assembler, Condition, Program, Register, Width,
            programs::{COUNTER, ECHO_FRAMES, TICKS_PER_DIGIT, console_counter, echo, powers_off},
        },
    },
};
use echovisor_replayer::{FollowError, History, Reached, ReplayError};
use echovisor_snapshot::Image;
use echovisor_tests::scripted::{self, boot};
use vm_memory::{Bytes, GuestAddress};

use crate::{
    following::{Followed, batches, follower, past_stops, without_digests},
    guests::{Said, echoed},
    recording::{End, Recording, record, written},
};

const SEEDS: std::ops::Range<u64> = 0..12;

/// A guest that echoes frames, one that lives by its clock and console, one with instructions of several exits.
fn programs() -> [Program; 3] {
    [echo(16), console_counter(), splits()]
}

/// For ever: copies from one address without RAM to another, which takes two exits, and sleeps now and then.
fn splits() -> Program {
    let [zero, from, to, rounds, limit] = [0, 1, 2, 3, 4].map(Register::new);
    let mut asm = Assembler::new(IMAGE_BASE);
    asm.set(from, PCI_WINDOW_BASE);
    asm.set(to, PCI_WINDOW_BASE + 8);
    let sleep = asm.here();
    asm.output(Width::Double, zero, DOORBELL_PORT);
    asm.set(rounds, 0);
    asm.set(limit, 4);
    let next = asm.here();
    asm.copy(Width::Quad, to, from);
    asm.add(rounds, 1);
    asm.branch(Condition::NotEqual, rounds, limit, next);
    asm.jump(sleep);
    asm.finish()
}

fn run(follower: &mut Followed) -> Reached {
    follower.run(None).expect("the log can be followed")
}

/// The end of a follower that must not come to the end of its log.
fn diverges(mut follower: Followed) -> FollowError<Infallible> {
    let error = follower.run(None).expect_err("a divergence");
    assert!(error.is_divergence(), "{error}");
    error
}

fn peek<C: Cpu>(machine: &Machine<C>, address: u64) -> u64 {
    machine.memory().mmap().read_obj(GuestAddress(address)).expect("an address in RAM")
}

/// Changes the one immediate of the program that is `from`.
fn change(follower: &Followed, from: u64, to: u64) {
    let machine = follower.machine();
    let immediates = (0..100).map(|instruction| IMAGE_BASE + 16 * instruction + 8);
    let found: Vec<u64> = immediates.filter(|address| peek(machine, *address) == from).collect();
    assert_eq!(found.len(), 1, "the program has one immediate {from}");
    machine.memory().mmap().write_obj(to, GuestAddress(found[0])).expect("an address in RAM");
}

/// Changes one byte of RAM behind the guest's back.
fn flip<C: Cpu>(machine: &Machine<C>, address: u64) {
    let memory = machine.memory().mmap();
    let byte: u8 = memory.read_obj(GuestAddress(address)).expect("an address in RAM");
    memory.write_obj(byte ^ 1, GuestAddress(address)).expect("an address in RAM");
}

#[test]
fn a_replay_is_exact() {
    for program in programs() {
        for seed in SEEDS {
            let recording = record(&mut boot(&program), seed, End::Stop(1500));
            assert!(recording.checkpoints > 1, "seed {seed} compares nothing on the way");
            let (mut follower, progress) = follower(&recording, usize::MAX);
            assert!(matches!(run(&mut follower), Reached::Stopped), "seed {seed}");
            let (machine, witness, _) = follower.into_parts();
            assert_eq!(witness.effects, recording.effects, "seed {seed}");
            assert_eq!((machine.position(), machine.trail().0), (recording.position, recording.trail));
            assert_eq!(progress.checkpoints(), recording.checkpoints, "seed {seed}");
        }
    }
}

#[test]
fn what_is_replayed_was_not_nothing() {
    let mut machine = boot(&echo(16));
    let recording = record(&mut machine, 1, End::Stop(1500));
    let echoes: Vec<_> = recording.frames.iter().map(|frame| Said::Frame(echoed(frame))).collect();
    let said: Vec<_> = recording.effects.iter().map(|(_, said)| said.clone()).collect();
    // Frames that came in last may not be echoed yet.
    assert!(said.len() > 500 && echoes.starts_with(&said), "{} echoes", said.len());
    let mut machine = boot(&console_counter());
    let recording = record(&mut machine, 1, End::Stop(1500));
    assert!(recording.effects.len() > 100 && peek(&machine, COUNTER) > 100);
}

#[test]
fn a_log_goes_on_behind_an_image() {
    for seed in SEEDS {
        let mut machine = boot(&echo(16));
        record(&mut machine, seed, End::Cut(700));
        let second = record(&mut machine, seed + 100, End::Stop(1500));
        let (mut follower, _) = follower(&second, usize::MAX);
        assert!(matches!(run(&mut follower), Reached::Stopped), "seed {seed}");
        assert_eq!(follower.into_parts().1.effects, second.effects, "seed {seed}");
    }
}

/// Wherever the log breaks off: the secondary stands in a state of the primary's, what the primary may not have released
/// is sent again, and the guest goes on as if nothing had happened.
#[test]
fn a_takeover_is_exact_at_the_end_of_every_batch() {
    for seed in 0..2 {
        let recording = record(&mut boot(&echo(16)), seed, End::Cut(200));
        for held in 1..=batches(&recording) {
            takeover(&recording, held, seed);
        }
    }
}

fn takeover(recording: &Recording, held: usize, seed: u64) {
    let context = format!("seed {seed}, {held} batches");
    let (mut follower, _) = follower(recording, held);
    assert!(matches!(run(&mut follower), Reached::LogEnds), "{context}");
    follower.machine().cpu().release();
    let (machine, witness, _) = follower.into_parts();
    let at = machine.position();

    // Nothing that the primary did up to the log's end is missing, nothing else was done.
    let done = recording.effects.iter().filter(|(made, _)| *made <= at).cloned();
    assert_eq!(witness.effects, done.collect::<Vec<_>>(), "{context}");
    let mut resent = Vec::new();
    witness.unconfirmed.resend(|at, effect| resent.push((at, Said::from(effect))));
    let unreleased = witness.effects.iter().filter(|(made, _)| *made > witness.released).count();
    assert!(resent.len() >= unreleased, "{context}: effects are lost");
    assert!(witness.effects.ends_with(&resent), "{context}: sent again what is not the newest");

    // The guest goes on: every frame that it was ever given is echoed, once and in order.
    let state = machine.save().expect("a boundary");
    let image = Image::capture(machine.memory(), state);
    let mut machine = image.restore(&scripted::config(), scripted::processor).expect("the state is valid");
    let given = delivered(recording, held);
    let after = record(&mut machine, seed ^ 0x5eed, End::Cut(at.0 + 150));
    let frames = recording.frames[..given].iter().chain(&after.frames);
    let said = witness.effects.iter().chain(&after.effects).map(|(_, said)| said.clone()).collect::<Vec<_>>();
    let echoes = frames.map(|frame| Said::Frame(echoed(frame))).collect::<Vec<_>>();
    assert!(said.len() > witness.effects.len(), "{context}: the guest does nothing any more");
    assert!(echoes.starts_with(&said), "{context}");
    assert!(echoes.len() - said.len() <= 6, "{context}: frames are lost");
    assert!(peek(&machine, ECHO_FRAMES) >= said.len() as u64, "{context}");
}

/// How many frames the first `held` batches deliver.
fn delivered(recording: &Recording, held: usize) -> usize {
    let mut history = following::history(recording, held);
    let mut frames = 0;
    while let Ok(Some(arrived)) = history.next() {
        let is_frame = |what| matches!(what, Record::Event(Event::Frame(_)));
        frames += arrived.batch.records().filter(|record| is_frame(record.what)).count();
    }
    frames
}

#[test]
fn a_byte_that_nobody_reads_is_found_at_the_next_checkpoint() {
    let recording = record(&mut boot(&echo(16)), 3, End::Stop(1500));
    let (follower, progress) = follower(&recording, usize::MAX);
    flip(follower.machine(), 0x70_0000);
    assert!(matches!(diverges(follower), FollowError::Digest { .. }));
    assert_eq!(progress.checkpoints(), 0);
}

#[test]
fn a_byte_that_changes_what_the_guest_does_is_found_by_the_trail() {
    let recording = record(&mut boot(&console_counter()), 3, End::Cut(1500));
    let follower = without_digests(&recording);
    change(&follower, TICKS_PER_DIGIT, TICKS_PER_DIGIT + 1);
    let error = diverges(follower);
    assert!(matches!(error, FollowError::Run(RunError::World(ReplayError::Trail { .. }))), "{error}");
}

#[test]
fn a_guest_that_ends_where_the_recorded_one_went_on_has_diverged() {
    // Nothing happened to the recorded guest, but it was still there at position 30.
    let recording = written(&boot(&powers_off(40, 7)), &[], 30);
    let follower = without_digests(&recording);
    change(&follower, 40, 2);
    let error = diverges(follower);
    assert!(matches!(error, FollowError::Run(RunError::World(ReplayError::Ended { .. }))), "{error}");
}

#[test]
fn a_record_where_no_event_can_be_delivered_is_missed() {
    let mut machine = boot(&splits());
    record(&mut machine, 1, End::Cut(1));
    // The next exit is the first of a copy, which has another one before it is complete.
    let at = machine.position().next();
    let recording = written(&machine, &[(at.0, Event::Clock(machine.clock()))], at.0 + 5);
    let (follower, _) = follower(&recording, usize::MAX);
    let error = diverges(follower);
    let FollowError::Run(RunError::World(ReplayError::Missed { missed, at: found })) = error else {
        panic!("{error}");
    };
    assert_eq!((missed, found), (at, at.next()));
}

#[test]
fn an_event_that_the_guest_cannot_take_is_a_divergence() {
    let machine = boot(&console_counter());
    let recording = written(&machine, &[(0, Event::Frame(&[0; 60]))], 1);
    let (follower, _) = follower(&recording, usize::MAX);
    assert!(matches!(diverges(follower), FollowError::Run(RunError::Delivery { .. })));
}

/// Without this the guest's clock would stand still after a takeover for as long as it has run.
#[test]
fn the_clock_goes_on_though_no_clock_event_came_in() {
    let mut machine = boot(&console_counter());
    record(&mut machine, 1, End::Cut(400));
    assert!(machine.clock() > Nanos::ZERO);
    let recording = written(&machine, &[], machine.position().0);
    let (mut follower, _) = follower(&recording, usize::MAX);
    assert!(matches!(run(&mut follower), Reached::LogEnds));
    assert_eq!(follower.into_parts().2.0, machine.clock());
}

#[test]
fn a_guest_that_ends_itself_ends_its_replay() {
    for seed in SEEDS {
        let recording = record(&mut boot(&powers_off(40, 7)), seed, End::Guest);
        let (mut whole, progress) = follower(&recording, usize::MAX);
        assert!(matches!(run(&mut whole), Reached::PoweredOff(7)), "seed {seed}");
        assert_eq!(progress.checkpoints(), recording.checkpoints, "the last one is compared, too");
        assert_eq!(whole.into_parts().1.effects.last(), Some(&(recording.position, Said::PowerOff(7))));
        // The last checkpoint is missing, as when the primary died before it was sent.
        let (mut cut, _) = follower(&recording, batches(&recording) - 1);
        let reached = run(&mut cut);
        assert!(matches!(reached, Reached::PoweredOff(7) | Reached::LogEnds), "seed {seed}: {reached:?}");
    }
}

/// As a guest that its operator stops and starts again from its store.
#[test]
fn who_was_stopped_and_started_again_is_followed_to_the_last_stop() {
    for (program, seed) in programs().into_iter().zip(SEEDS) {
        let mut machine = boot(&program);
        let mut recording = record(&mut machine, seed, End::Stop(200));
        for end in [400, 600] {
            let again = record(&mut machine, seed + end, End::Stop(end));
            recording.pieces.extend(again.pieces);
            recording.checkpoints += again.checkpoints;
            (recording.position, recording.trail) = (again.position, again.trail);
        }
        let (mut stops, _) = follower(&recording, usize::MAX);
        assert!(matches!(run(&mut stops), Reached::Stopped));
        assert!(stops.machine().position() < recording.position, "a secondary ends at the first stop");

        let (mut passes, progress) = past_stops(&recording);
        assert!(matches!(run(&mut passes), Reached::Stopped));
        assert_eq!(passes.machine().position(), recording.position);
        assert_eq!(passes.machine().trail().0, recording.trail);
        assert_eq!(progress.checkpoints(), recording.checkpoints);
    }
}
