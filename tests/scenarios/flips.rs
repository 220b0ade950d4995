//! Bits of a secondary's memory, registers and devices go bad on a real processor, under load: each is found, healed and told where
//! it was, or the guest has overwritten it, which is proved.
//!
//! ```text
//! ECHOVISOR_FLIPS=50 cargo test --release -p echovisor-tests --test flips -- --nocapture   as many flips
//! ```
//!
//! A flip counts as overwritten when checkpoints behind it found all of the state equal: registers and devices are in each
//! digest, and whatever a wrong register was written to is on the guest's account of changed pages, so two are enough; a byte of
//! memory may be read by none of the digests of one pass.

use std::fs;

use echovisor_event::limits::PAGE_SIZE;
use echovisor_tests::{KV, Lab, Load, Node, Part, Role, Status, scenario, size};

/// Flips where nothing else is asked for: three of each part.
const FLIPS: u64 = 9;

/// How often there are checkpoints. To prove that a byte of memory was overwritten takes a whole pass of the scrub.
const CADENCE: [&str; 2] = ["--checkpoint-every", "50ms"];

/// Checkpoints that prove that nothing differs any more: two for what is in every digest, and a whole pass over memory.
const SOON: u64 = 3;
const PASS: u64 = 66;

/// The registers in the order in which they are numbered.
const REGISTERS: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// The guest's memory, bytes.
const MEMORY: u64 = 64 << 20;

/// A bit that goes bad.
#[derive(Clone, Copy, Debug)]
struct Flip {
    part: Part,
    at: u64,
    bit: u8,
}

/// What became of the flips.
#[derive(Debug, Default)]
struct Sum {
    exact: u64,
    /// Noticed by its trail: what the guest has done meanwhile differs, too.
    elsewhere: u64,
    overwritten: u64,
}

fn checkpoints(status: &Status) -> u64 {
    status.more["checkpoints"].as_u64().expect("a number")
}

/// Makes a bit go bad, and gives the report of its healing; none if the guest has overwritten it.
fn flip(secondary: &Node, flip: Flip) -> Option<String> {
    let before = secondary.wait_until("eligible", |status| status.protected);
    secondary.spoil(flip.part, flip.at, flip.bit);
    let wanted = if let Part::Memory = flip.part { PASS } else { SOON };
    let healed = |status: &Status| status.divergences > before.divergences;
    let (mut seen, goal) = (checkpoints(&before), checkpoints(&before) + wanted);
    loop {
        let status = secondary.wait_until("past another checkpoint, or diverged", |status| {
            healed(status) || checkpoints(status) > seen
        });
        if healed(&status) {
            break;
        }
        seen = checkpoints(&status);
        if seen >= goal {
            return None;
        }
    }
    let after = secondary.wait_until("healed", |status| status.protected);
    assert_eq!(after.divergences, before.divergences + 1, "{flip:?} is healed once: {after:?}");
    let report = &after.more["last_divergence"];
    Some(report.as_str().expect("a text").to_owned())
}

/// Whether a report names what was made to fail. What the guest did with a wrong register may differ instead of it.
fn names(report: &str, flip: Flip) -> bool {
    match flip.part {
        Part::Memory => report.contains(&format!("\n  page {} ", flip.at % MEMORY / PAGE_SIZE as u64)),
        Part::Register => {
            let name = REGISTERS[flip.at as usize % REGISTERS.len()];
            report.contains(&format!(".{name} is ")) || report.contains("\n  page ")
        }
        Part::Device => report.contains("devices.console.scratch is "),
    }
}

#[test]
fn flips_on_a_real_processor_are_healed_and_told() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let reports = scene.path("reports");
        let mut primary = lab.primary_with(&lab.primary, KV, &CADENCE);
        let keep = ["--reports", &reports.to_string_lossy()];
        let secondary = lab.secondary_with(&lab.secondary, &lab.primary, &keep);
        primary.wait_until("protected", |status| status.protected);
        let term = primary.status().expect("a status").term;
        let mut random = scene.random();
        let load = Load::start(&lab, random.u64(..));
        let mut sum = Sum::default();
        for number in 0..size("ECHOVISOR_FLIPS", FLIPS) {
            let part = [Part::Register, Part::Device, Part::Memory][number as usize % 3];
            let made = Flip { part, at: random.u64(..), bit: random.u8(..64) };
            match flip(&secondary, made) {
                None => {
                    assert!(!matches!(part, Part::Device), "nobody writes the console's scratch register");
                    sum.overwritten += 1;
                }
                Some(report) if report.contains("\n  compared was ") => sum.elsewhere += 1,
                Some(report) if report.contains("\n  nothing differs any more") => sum.overwritten += 1,
                Some(report) => {
                    assert!(report.contains("\n  the guest stood at 0x"), "{report}");
                    assert!(names(&report, made), "{made:?}: {report}");
                    sum.exact += 1;
                }
            }
            println!("{made:?}: {sum:?}");
        }
        let kept = fs::read_dir(&reports).expect("the folder of reports").count() as u64;
        assert_eq!(kept, secondary.status().expect("a status").divergences, "a report is kept of each");
        load.wait_for_replies(500);
        primary.wait_until("protected", |status| status.protected);
        primary.process.kill();
        load.wait_for_replies(500);
        assert_eq!(lab.must_be_alone(&secondary, term + 1).role, Role::Primary);
        load.finish().must_be_clean();
        secondary.stop();
    });
}
