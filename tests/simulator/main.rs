//! Primary, secondary, gate and log under every fault that the link, the arbiter and the hosts can have, in virtual time.
//! README.md tells what is verified, and what is not.
//!
//! ```text
//! ECHOVISOR_SEED=7 cargo test --release -p echovisor-tests --test simulator   one run again
//! ECHOVISOR_SEEDS=10000 cargo test ...                                         as many runs
//! ```

mod arbiter;
mod clients;
mod coverage;
mod guests;
mod mutant;
mod net;
mod node;
mod oracles;
mod plan;
mod simulation;
mod time;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use crate::{
    coverage::{Coverage, Listener},
    mutant::Mutant,
    oracles::Violation,
    plan::Plan,
    simulation::{Run, Simulation},
    time::{SECOND, Time},
};

/// Runs where nothing else is asked for.
const SEEDS: u64 = 300;

/// From so many runs on every transition must have been taken.
const ALL_TRANSITIONS: u64 = 10_000;

/// Runs within which a broken protocol must be found out.
const CANARY: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`")))
}

/// One run.
fn run(seed: u64, mutant: Mutant, listener: &Listener) -> Result<Run, Violation> {
    let plan = Plan::new(seed, mutant);
    tracing::subscriber::with_default(listener.clone(), || {
        match catch_unwind(AssertUnwindSafe(|| Simulation::new(plan).run())) {
            Ok(result) => result,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(Violation { oracle: "no panic", what: text.unwrap_or_default() })
            }
        }
    })
}

/// Panics with everything that is needed to see the run again.
fn report(seed: u64, violation: &Violation) -> ! {
    let listener = Listener::keeping();
    let _ = run(seed, Mutant::None, &listener);
    let lines = listener.lines();
    for line in &lines[lines.len().saturating_sub(120)..] {
        eprintln!("{line}");
    }
    eprintln!("{:#?}", Plan::new(seed, Mutant::None));
    panic!(
        "{violation}\nseed {seed}: ECHOVISOR_SEED={seed} cargo test --release -p echovisor-tests --test simulator"
    );
}

/// What many runs have shown.
#[derive(Default)]
struct Sum {
    runs: u64,
    virtual_time: Time,
    answered: u64,
    released: u64,
    takeovers: u64,
    crashes: u64,
    lost: u64,
    ended: u64,
    coverage: Coverage,
}

impl Sum {
    fn add(&mut self, run: &Run, coverage: Coverage) {
        self.runs += 1;
        self.virtual_time += run.virtual_time;
        self.answered += run.answered;
        self.released += run.released as u64;
        self.takeovers += run.takeovers;
        self.crashes += run.crashes;
        self.lost += u64::from(run.lost);
        self.ended += u64::from(run.ended);
        for (transition, count) in coverage {
            *self.coverage.entry(transition).or_default() += count;
        }
    }
}

#[test]
fn all_rules_hold_whatever_fails() {
    if let Some(seed) = number("ECHOVISOR_SEED") {
        match run(seed, Mutant::None, &Listener::default()) {
            Ok(run) => println!("{run:#?}"),
            Err(violation) => report(seed, &violation),
        }
        return;
    }
    let seeds = number("ECHOVISOR_SEEDS").unwrap_or(SEEDS);
    let first = number("ECHOVISOR_FIRST_SEED").unwrap_or(0);
    let (next, sum, failed) = (AtomicU64::new(first), Mutex::new(Sum::default()), Mutex::new(None));
    let begun = Instant::now();
    let threads = thread::available_parallelism().map_or(1, |count| count.get().min(8));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().expect("no panic").is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let listener = Listener::default();
                    match run(seed, Mutant::None, &listener) {
                        Ok(run) => sum.lock().expect("no panic").add(&run, listener.coverage()),
                        Err(violation) => *failed.lock().expect("no panic") = Some((seed, violation)),
                    }
                }
            });
        }
    });
    if let Some((seed, violation)) = failed.into_inner().expect("no panic") {
        report(seed, &violation);
    }
    let sum = sum.into_inner().expect("no panic");
    let (real, simulated) = (begun.elapsed().as_secs_f64(), sum.virtual_time as f64 / SECOND as f64);
    for ((protocol, state, input), count) in &sum.coverage {
        println!("{protocol:<10} {state:<18} {input:<18} {count:>12}");
    }
    println!(
        "{} runs: {simulated:.0} s simulated in {real:.0} s, {:.0} s/s; {} requests answered, {} effects released, \
         {} crashes, {} takeovers; the guest was stopped in {} runs, and lost with all its nodes in {}",
        sum.runs,
        simulated / real,
        sum.answered,
        sum.released,
        sum.crashes,
        sum.takeovers,
        sum.ended,
        sum.lost,
    );
    let (unknown, missing) = coverage::compare(&sum.coverage);
    println!("transitions not taken: {missing:?}");
    assert!(unknown.is_empty(), "transitions that are not in the table: {unknown:?}");
    assert!(missing.is_empty() || seeds < ALL_TRANSITIONS, "transitions that were not taken: {missing:?}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..6 {
        let course = || run(seed, Mutant::None, &Listener::default()).map(|run| run.course).ok();
        assert_eq!(course(), course(), "seed {seed}");
    }
}

/// Runs a broken protocol until an oracle finds it out, and tells which did.
fn found_out(mutant: Mutant) -> &'static str {
    let found = (0..CANARY).find_map(|seed| {
        let violation = run(seed, mutant, &Listener::default()).err()?;
        println!("{mutant:?}, seed {seed}: {violation}");
        Some(violation.oracle)
    });
    found.unwrap_or_else(|| panic!("{CANARY} runs of {mutant:?}, and nothing was noticed"))
}

#[test]
fn a_gate_that_does_not_wait_is_found_out() {
    assert_eq!(found_out(Mutant::OpenGate), "no release before its acknowledgement");
}

#[test]
fn a_lease_that_never_ends_is_found_out() {
    assert_eq!(found_out(Mutant::EndlessLease), "one live primary per term");
}

#[test]
fn a_primary_that_goes_on_without_the_arbiter_is_found_out() {
    found_out(Mutant::SoloUnasked);
}

#[test]
fn a_secondary_that_was_not_granted_anything_is_found_out() {
    found_out(Mutant::EligibleEarly);
}

#[test]
fn a_new_primary_that_sends_nothing_again_is_found_out() {
    assert_eq!(found_out(Mutant::NothingSentAgain), "no effect lost or contradicted");
}

#[test]
fn a_secondary_that_seizes_the_guest_is_found_out() {
    found_out(Mutant::Seizes);
}
