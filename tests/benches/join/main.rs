//! What the join of a secondary costs a guest under load, as a table in Markdown for BENCHMARKS.md and a plot:
//! `cargo bench --package echovisor-tests --bench join`
//!
//! The guest's memory is filled with random values first, to five eighths; then eight connections write and read, and every reply is
//! checked. A secondary is started, joins, and follows in lockstep; all the while replies are counted, 50 times a second.
//! `ECHOVISOR_MEMORY`, such as `64 1024`, sets the sizes in MiB; `ECHOVISOR_PLOT` names the file for the plot.

mod filling;
mod memory;
mod plot;

use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use echovisor_tests::{KV, Lab, Load, Node, Scene, Status, Verdict, scenario};
use echovisor_tools::control;
use memory::Processes;
use plot::{Panel, Sample};

/// How often replies are counted.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long the load runs alone, and how long behind the join.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(3);

/// What a join has cost.
struct Join {
    /// Bytes of the guest's memory.
    memory: u64,
    /// Bytes of it that are not zero.
    filled: u64,
    /// What the primary says of the pages that it has sent.
    pages: Pages,
    /// Bytes on the link from the secondary's start to protection.
    link: u64,
    /// From the secondary's start.
    joining: Duration,
    protected: Duration,
    samples: Vec<Sample>,
    verdict: Verdict,
    /// Bytes resident: the most while it joined, and later.
    primary: [u64; 2],
    secondary: [u64; 2],
}

/// Pages that were sent, in bytes of memory and in bytes on the way.
struct Pages {
    memory: u64,
    sent: u64,
}

fn main() {
    let sizes = env::var("ECHOVISOR_MEMORY").unwrap_or_else(|_| "64 1024".into());
    let sizes = sizes.split_whitespace().map(|size| size.parse::<u64>().expect("a size in MiB") << 20);
    let sizes: Vec<u64> = sizes.collect();
    scenario(|scene| {
        let joins: Vec<Join> = sizes.iter().map(|size| join(scene, *size)).collect();
        print(&joins);
        let file = env::var("ECHOVISOR_PLOT").unwrap_or_else(|_| "target/join.svg".into());
        let panels: Vec<Panel> = joins.iter().map(Join::panel).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        fs::write(root.join(&file), plot::draw(&panels)).expect("a file for the plot");
        println!("\nThe plot is in {file}.");
    });
}

fn join(scene: &Scene, size: u64) -> Join {
    eprintln!("{} MiB", size >> 20);
    let lab = Lab::new(scene);
    let memory = format!("{}M", size >> 20);
    let primary = lab.unprotected_with(
        &lab.primary,
        KV,
        &["--memory", &memory, "--listen", &format!("{}:7000", lab.primary.address)],
    );
    let filled = filling::fill(&mut lab.connect(6379), size / 8 * 5);
    let load = Load::start(&lab, scene.random().u64(..));
    load.wait_for_replies(1000);
    let processes = Processes::new(scene);
    let mut watch = Watch::new(&load, &primary);
    let begun = Instant::now();
    watch.until(|now, _| now >= begun + BEFORE);
    processes.forget_peak(&primary.process);
    let before = lab.link_bytes();
    let start = Instant::now();
    let secondary = lab.secondary(&lab.secondary, &lab.primary);
    let joining = watch.until(|_, status| status.more["mode"] == "joining");
    let protected = watch.until(|_, status| status.protected);
    let link = lab.link_bytes() - before;
    let peaks = [&primary, &secondary].map(|node| processes.peak(&node.process));
    [&primary, &secondary].into_iter().for_each(|node| processes.forget_peak(&node.process));
    watch.until(|now, _| now >= protected + AFTER);
    let later = [&primary, &secondary].map(|node| processes.peak(&node.process));
    let samples = watch.samples(start);
    let verdict = load.finish();
    verdict.must_be_clean();
    let pages = pages(&primary.process.said());
    secondary.stop();
    primary.stop();
    Join {
        memory: size,
        filled,
        pages,
        link,
        joining: joining - start,
        protected: protected - start,
        samples,
        verdict,
        primary: [peaks[0], later[0]],
        secondary: [peaks[1], later[1]],
    }
}

/// Counts replies, and asks the primary how it is.
struct Watch<'a> {
    load: &'a Load,
    primary: &'a Node,
    runtime: tokio::runtime::Runtime,
    counts: Vec<(Instant, u64)>,
}

impl<'a> Watch<'a> {
    fn new(load: &'a Load, primary: &'a Node) -> Watch<'a> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Watch { load, primary, runtime, counts: vec![(Instant::now(), load.replies())] }
    }

    /// Goes on until it is time; returns when that was.
    fn until(&mut self, is_time: impl Fn(Instant, &Status) -> bool) -> Instant {
        loop {
            let (last, _) = self.counts[self.counts.len() - 1];
            thread::sleep((last + INTERVAL).saturating_duration_since(Instant::now()));
            let now = Instant::now();
            self.counts.push((now, self.load.replies()));
            let status = self.runtime.block_on(control::status(self.primary.control())).expect("a status");
            if is_time(now, &status) {
                return now;
            }
        }
    }

    /// Replies per second, by seconds since `start`.
    fn samples(self, start: Instant) -> Vec<Sample> {
        let since = |at: Instant| match at.checked_duration_since(start) {
            Some(after) => after.as_secs_f64(),
            None => -(start - at).as_secs_f64(),
        };
        let pairs = self.counts.windows(2);
        pairs
            .map(|pair| {
                let [(from, before), (to, after)] = [pair[0], pair[1]];
                Sample { at: since(from), rate: (after - before) as f64 / (to - from).as_secs_f64() }
            })
            .collect()
    }
}

/// Reads it off the primary's log.
fn pages(said: &str) -> Pages {
    let line =
        said.lines().find(|line| line.contains("bytes of memory")).expect("the primary says what it sent");
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [.., memory, sent] = numbers[..] else { panic!("numbers in {line}") };
    Pages { memory, sent }
}

impl Join {
    /// Mean replies per second between two moments.
    fn rate(&self, from: f64, to: f64) -> f64 {
        let within: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| (from..to).contains(&sample.at))
            .map(|sample| sample.rate)
            .collect();
        within.iter().sum::<f64>() / within.len().max(1) as f64
    }

    fn panel(&self) -> Panel<'_> {
        Panel {
            title: format!("Guest with {} MiB of memory", self.memory >> 20),
            samples: &self.samples,
            joining: self.joining.as_secs_f64(),
            protected: self.protected.as_secs_f64(),
        }
    }
}

fn print(joins: &[Join]) {
    println!(
        "| guest | in use | memory sent, of that | in bytes | on the link | joining, ms | requests/s before | during | after | longest silence, ms | replies checked | failed |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for join in joins {
        let (begun, ended) = (join.joining.as_secs_f64(), join.protected.as_secs_f64());
        println!(
            "| {} MiB | {} MiB | {:.2} | {} MB | {} MB | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} | {} |",
            join.memory >> 20,
            join.filled >> 20,
            join.pages.memory as f64 / join.filled as f64,
            join.pages.sent / 1_000_000,
            join.link / 1_000_000,
            (ended - begun) * 1000.0,
            join.rate(-BEFORE.as_secs_f64(), 0.0),
            join.rate(begun, ended),
            join.rate(ended + 0.2, f64::INFINITY),
            join.verdict.longest_silence.as_millis(),
            join.verdict.tally.replies,
            join.verdict.tally.faults + join.verdict.resets,
        );
    }
    println!(
        "\n| guest | primary, while a secondary joins | protected | secondary, while it joins | in lockstep |"
    );
    println!("|--:|--:|--:|--:|--:|");
    for Join { memory, primary, secondary, .. } in joins {
        let of = |bytes: u64| bytes as f64 / *memory as f64;
        let [joining, later] = primary.map(of);
        let [joins, lockstep] = secondary.map(of);
        println!("| {} MiB | {joining:.2} | {later:.2} | {joins:.2} | {lockstep:.2} |", memory >> 20);
    }
}
