//! Speed and bandwidth as tables in Markdown, for BENCHMARKS.md: `cargo bench --package echovisor-tests --bench measure`
//!
//! Unprotected, recorded and protected nodes live side by side and take turns of about a second, so that whatever else the host
//! does hits all of them alike. Figures are medians over the rounds; ratios are those of all rounds together, so that what happens
//! rarely counts, too, with the standard error that follows from how the rounds differ. Read the ratios: two nodes, the guest and
//! the load share this host. `ECHOVISOR_ROUNDS` sets the number of rounds; `ECHOVISOR_LOAD`, such as `50 clients`,
//! leaves out the other loads; `ECHOVISOR_LINK`, such as `100mbit`, slows the link down. `ECHOVISOR_MODES` names what is
//! compared, and the first with which: `plain encrypted` for what encryption costs, `unfiltered unprotected` for what the
//! seccomp filters do.

use std::{collections::BTreeMap, env, time::Duration};

use echovisor_tests::{KV, Lab, Measured, Node, Scene, scenario, size};

/// Loads for redis-benchmark: name, connections and pipelining, requests that tell how many make a turn.
const LOADS: [(&str, &str, u64); 3] = [
    ("1 client", "-c 1", 2_000),
    ("50 clients", "-c 50", 20_000),
    ("50 clients, pipelined", "-c 50 -P 16", 160_000),
];

/// How long a turn asks for each kind of request, about: several times as long as a batch of a recording may wait to be encoded.
const TURN: Duration = Duration::from_millis(600);

/// How often a recording takes a snapshot by itself.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);

/// Who holds what happens to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    /// Nobody, and the node runs without its seccomp filters.
    Unfiltered,
    /// Nobody.
    Unprotected,
    /// A disk.
    Recorded,
    /// A secondary.
    Protected,
    /// A secondary at a Unix socket, in plain text.
    Plain,
    /// A secondary at a Unix socket, encrypted.
    Encrypted,
}

const MODES: [Mode; 6] =
    [Mode::Unfiltered, Mode::Unprotected, Mode::Recorded, Mode::Protected, Mode::Plain, Mode::Encrypted];

/// How one kind of request went in one run.
struct Run {
    measured: Measured,
    /// CPU time of the node, guest included, for each request of this run of whatever kind.
    cpu: Duration,
    /// The part of it that the guest's own thread took: what bounds the guest's speed where there are processors to spare.
    vcpu: Duration,
}

/// Bytes during one run of a load under protection.
struct Traffic {
    received: u64,
    sent: u64,
    payload: u64,
    link: u64,
}

#[derive(Default)]
struct Results {
    /// By load, request and mode.
    speed: BTreeMap<(usize, String, Mode), Vec<Run>>,
    /// By load.
    traffic: BTreeMap<usize, Vec<Traffic>>,
}

fn main() {
    scenario(|scene| {
        let mut results = Results::default();
        let rounds = size("ECHOVISOR_ROUNDS", 15);
        let wanted = env::var("ECHOVISOR_LOAD").ok();
        let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| name == wanted);
        let names = env::var("ECHOVISOR_MODES");
        let names = names.as_deref().unwrap_or("unprotected recorded protected");
        let modes: Vec<Mode> = names.split_whitespace().map(mode).collect();
        for (load, (name, ..)) in LOADS.iter().enumerate().filter(|(_, load)| is_wanted(load.0)) {
            let mut stages: Vec<Stage> =
                modes.iter().map(|mode| Stage::set(scene, *mode, modes.len())).collect();
            let requests = stages[0].requests(load);
            for round in 1..=rounds {
                eprintln!("{name}: round {round} of {rounds}");
                stages.iter().for_each(|stage| stage.measure(load, requests, &mut results));
                stages.rotate_left(1);
            }
            for stage in stages {
                stage.node.stop();
            }
        }
        print_speed(&results, modes[0]);
        print_traffic(&results);
    });
}

fn mode(name: &str) -> Mode {
    let mode = MODES.into_iter().find(|mode| format!("{mode:?}").eq_ignore_ascii_case(name));
    mode.unwrap_or_else(|| panic!("ECHOVISOR_MODES: {name} is none of {MODES:?}"))
}

/// Nodes that wait for their turn.
struct Stage<'a> {
    mode: Mode,
    lab: Lab<'a>,
    node: Node,
    _secondary: Option<Node>,
}

impl<'a> Stage<'a> {
    /// Starts the nodes, which take turns with `many` in all.
    fn set(scene: &'a Scene, mode: Mode, many: usize) -> Stage<'a> {
        let lab = Lab::new(scene);
        if let Ok(rate) = env::var("ECHOVISOR_LINK") {
            lab.shape_link(&rate);
        }
        let (node, _secondary) = match mode {
            Mode::Unfiltered => (lab.unprotected_with(&lab.primary, KV, &["--no-seccomp"]), None),
            Mode::Unprotected => (lab.unprotected(&lab.primary, KV), None),
            Mode::Recorded => {
                // As many snapshots are to fall into its turns as if it never waited for one.
                let every = format!("{}s", SNAPSHOT_EVERY.as_secs() * many as u64);
                (lab.record_with(&lab.primary, KV, &["--snapshot-every", &every]).0, None)
            }
            Mode::Protected => {
                let (primary, secondary) = lab.pair(KV);
                (primary, Some(secondary))
            }
            Mode::Plain | Mode::Encrypted => {
                let (primary, secondary) = lab.pair_over_unix(KV, mode == Mode::Encrypted);
                (primary, Some(secondary))
            }
        };
        drop(lab.connect(6379));
        Stage { mode, lab, node, _secondary }
    }

    /// How many requests of each kind take as long as they are to take in a turn.
    fn requests(&self, load: usize) -> u64 {
        let rows = self.lab.redis_benchmark(&arguments(load, LOADS[load].2));
        let slowest = rows.iter().map(|row| row.rate).fold(f64::INFINITY, f64::min);
        (slowest * TURN.as_secs_f64()) as u64
    }

    /// A turn.
    fn measure(&self, load: usize, requests: u64, results: &mut Results) {
        let Stage { mode, lab, node, .. } = self;
        let before = traffic(lab, node);
        let times = || [node.process.cpu_time(), node.process.thread_time("vcpu")];
        let begun = times();
        let rows = lab.redis_benchmark(&arguments(load, requests));
        let ended = times();
        let [cpu, vcpu] =
            [0, 1].map(|which| (ended[which] - begun[which]).div_f64(requests as f64 * rows.len() as f64));
        for measured in rows {
            let key = (load, measured.request.clone(), *mode);
            results.speed.entry(key).or_default().push(Run { measured, cpu, vcpu });
        }
        if *mode == Mode::Protected {
            let after = traffic(lab, node);
            results.traffic.entry(load).or_default().push(Traffic {
                received: after.received - before.received,
                sent: after.sent - before.sent,
                payload: after.payload - before.payload,
                link: after.link - before.link,
            });
        }
    }
}

fn arguments(load: usize, requests: u64) -> String {
    format!("-t set,get -r 200000 -d 16 -n {requests} {}", LOADS[load].1)
}

/// What has gone through so far: the link's own counter is the interface's, the rest is what the node says.
fn traffic(lab: &Lab, node: &Node) -> Traffic {
    let status = node.wait_until("idle", |status| status.acknowledged >= status.watermark);
    Traffic {
        received: status.guest_rx_bytes,
        sent: status.guest_tx_bytes,
        payload: status.log_bytes,
        link: lab.link_bytes(),
    }
}

fn print_speed(results: &Results, base: Mode) {
    let first = format!("{base:?}").to_lowercase();
    println!(
        "| load | request | | requests/s | of {first} | p50 ms | p99 ms | node's CPU µs/request | guest's thread | of {first} |"
    );
    println!("|---|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for ((load, request, mode), runs) in &results.speed {
        let bases = &results.speed[&(*load, request.clone(), base)];
        let of = |part: fn(&Run) -> f64| median(runs.iter().map(part));
        println!(
            "| {} | {request} | {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            LOADS[*load].0,
            format!("{mode:?}").to_lowercase(),
            of(|run| run.measured.rate),
            // The time that as many requests took.
            ratio(bases, runs, |run| 1.0 / run.measured.rate),
            of(|run| run.measured.p50),
            of(|run| run.measured.p99),
            of(|run| run.cpu.as_secs_f64() * 1e6),
            of(|run| run.vcpu.as_secs_f64() * 1e6),
            ratio(runs, bases, |run| run.vcpu.as_secs_f64()),
        );
    }
}

/// The sum of `part` in `runs` to that in `bases`, whose rounds are the same, and its standard error (W. G. Cochran, Sampling Techniques,
/// third edition, 2.11).
fn ratio(runs: &[Run], bases: &[Run], part: fn(&Run) -> f64) -> String {
    let total = |runs: &[Run]| runs.iter().map(part).sum::<f64>();
    let ratio = total(runs) / total(bases);
    let squares: f64 =
        runs.iter().zip(bases).map(|(run, base)| (part(run) - ratio * part(base)).powi(2)).sum();
    let rounds = runs.len() as f64;
    let error = (squares * rounds / (rounds - 1.0)).sqrt() / total(bases);
    if runs.len() > 1 { format!("{ratio:.3} ± {error:.3}") } else { format!("{ratio:.3}") }
}

fn print_traffic(results: &Results) {
    println!(
        "| load | guest received | guest sent | log payload | of received | on the link | of received |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (load, runs) in &results.traffic {
        let bytes = |part: fn(&Traffic) -> u64| median(runs.iter().map(|run| part(run) as f64));
        let (received, sent) = (bytes(|run| run.received), bytes(|run| run.sent));
        let (payload, link) = (bytes(|run| run.payload), bytes(|run| run.link));
        println!(
            "| {} | {received:.0} | {sent:.0} | {payload:.0} | {:.3} | {link:.0} | {:.3} |",
            LOADS[*load].0,
            payload / received,
            link / received,
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
