//! Random bits of a secondary's memory, registers and devices go bad: each is found and healed, told where it was, or gone
//! because the guest has overwritten it.
//!
//! ```text
//! ECHOVISOR_FLIPS=1000 cargo test -p echovisor-tests --test scripted_nodes flips -- --nocapture   as many flips
//! ECHOVISOR_SEED=7 ...                                                                            others
//! ```

use std::time::{Duration, Instant};

use echovisor_event::limits::PAGE_SIZE;
use echovisor_machine::cpu::scripted::ScriptedCpu;
use echovisor_replayer::{Spoil, secondary::Report};
use echovisor_tests::size;
use fastrand::Rng;
use tokio::sync::oneshot;

use crate::{
    guests::{Said, echoed, frame},
    lab::{Lab, Primary, Secondary},
};

/// Flips where nothing else is asked for.
const FLIPS: u64 = 24;

/// Checkpoints within which every page is read again, and some more for the one that is under way.
const PASS: u64 = 66;

/// Positions between checkpoints: few, so that a pass over all of the memory takes not long.
const CADENCE: u64 = 20;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

/// What became of the flips.
#[derive(Debug, Default)]
struct Sum {
    exact: u64,
    elsewhere: u64,
    overwritten: u64,
    never_seen: u64,
}

struct Pair {
    primary: Primary,
    secondary: Secondary<ScriptedCpu>,
    frames: u64,
}

impl Pair {
    /// Lets the guest work until `done`.
    fn work_until(&mut self, what: &str, done: impl Fn(&mut Pair) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < LIMIT, "waited for {what}: {:?}", self.secondary.status());
            self.burst();
        }
    }

    /// Sends frames all at once, and waits for the last echo.
    fn burst(&mut self) {
        let last = self.frames + 20;
        (self.frames..=last).for_each(|number| self.primary.wire.send(number));
        self.frames = last + 1;
        let echo = Said::Frame(echoed(&frame(last)));
        while self.primary.wire.said.recv_timeout(LIMIT).expect("an echo") != echo {}
    }

    /// Makes a bit go bad, and lets the guest work until that was healed, or a whole pass over its memory found nothing. Gives
    /// what the secondary reports.
    fn flip(&mut self, spoil: Spoil) -> Option<Report> {
        let before = self.secondary.status();
        let (reply, done) = oneshot::channel();
        self.secondary.spoil(spoil, reply);
        assert!(done.blocking_recv().expect("a living node"), "there is a machine");
        let healed = |pair: &mut Pair| pair.secondary.status().divergences > before.divergences;
        let goal = before.checkpoints + PASS;
        self.work_until("a fault to be found", |pair| {
            healed(pair) || pair.secondary.status().checkpoints >= goal
        });
        if !healed(self) {
            return None;
        }
        self.work_until("the guest to be protected again", |pair| {
            pair.secondary.status().eligible && pair.primary.status().mode == "protected"
        });
        let status = self.secondary.status();
        assert_eq!(status.divergences, before.divergences + 1, "{spoil:?} was healed once: {status:?}");
        status.last_divergence.as_deref().cloned()
    }
}

fn draw(rng: &mut Rng) -> Spoil {
    let bit = rng.u8(..64);
    match rng.u8(..4) {
        0 => Spoil::Register { number: rng.usize(..64), bit },
        1 => Spoil::Device { bit },
        _ => Spoil::Memory { address: rng.u64(..), bit },
    }
}

/// Whether a report whose two states stood at the same position names what was made to fail. What the guest has done with a
/// wrong register by then may differ, too.
fn names(report: &Report, spoil: Spoil) -> bool {
    match spoil {
        Spoil::Memory { address, .. } => {
            let page = (address % echovisor_tests::scripted::config().memory) as usize / PAGE_SIZE;
            report.memory.listed.iter().any(|difference| difference.page == page)
        }
        Spoil::Register { .. } => {
            !report.fields.is_empty() && report.fields.iter().any(|field| field.name.starts_with("cpu."))
                || report.memory.pages > 0
        }
        Spoil::Device { .. } => report.fields.iter().any(|field| field.name == "devices.console.scratch"),
    }
}

#[test]
fn random_flips_are_healed_and_told() {
    let flips = size("ECHOVISOR_FLIPS", FLIPS);
    let lab = Lab::with_checkpoints(CADENCE);
    let (primary, secondary) = lab.pair();
    let mut pair = Pair { primary, secondary, frames: 0 };
    let (mut rng, mut sum) = (Rng::with_seed(size("ECHOVISOR_SEED", 11)), Sum::default());
    for number in 0..flips {
        let spoil = draw(&mut rng);
        match pair.flip(spoil) {
            // A pass over all of the memory, with registers and devices in each digest, found both sides equal.
            None => sum.never_seen += 1,
            Some(report) if report.is_overwritten() => sum.overwritten += 1,
            Some(report) if report.is_exact() => {
                assert!(names(&report, spoil), "flip {number}, {spoil:?}: {report}");
                sum.exact += 1;
            }
            Some(_) => sum.elsewhere += 1,
        }
    }
    println!("{flips} flips: {sum:?}");
    assert!(sum.exact > flips / 4, "{sum:?}");

    let Pair { mut primary, secondary, frames } = pair;
    primary.wire.talk(frames..frames + 20);
    primary.running.kill();
    lab.promote("two", secondary.promoted()).wire.talk(frames + 20..frames + 40);
}
