//! The demo with everything real but the nodes: processes are killed, connections must survive, and an honest verdict is
//! due whatever the nodes do.
//!
//! The guest lives in the test's own process, behind a socket. This program, started again as `primary` or `secondary`,
//! relays frames between that socket and the network of the demo, so that a kill -9 has the same consequences for the
//! network as with real nodes, and a test can let the guest misbehave at the takeover in a way of its choice.

mod guest;
mod relay;

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use echovisor_tools::commands::demo::{DemoArgs, Verdict, play};
use guest::{Guest, Takeover};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("primary" | "secondary") => return relay::run(&arguments[1], &arguments[2..]),
        Some("demo") => return endless_demo(Path::new(&arguments[2])),
        _ => {}
    }
    let trials = vec![
        Trial::test("nothing_is_lost", nothing_is_lost),
        Trial::test("a_seed_repeats_the_requests", a_seed_repeats_the_requests),
        Trial::test("one_forgotten_write_is_found", one_forgotten_write_is_found),
        Trial::test("a_reset_is_counted", a_reset_is_counted),
        Trial::test("a_guest_that_stays_silent_ends_the_demo", a_guest_that_stays_silent_ends_the_demo),
        Trial::test("a_node_that_ends_is_named", a_node_that_ends_is_named),
        Trial::test("a_secondary_that_speaks_too_early_is_found_out", a_secondary_that_speaks_too_early),
        Trial::test("an_interrupted_demo_leaves_nothing_behind", an_interrupted_demo_leaves_nothing_behind),
        Trial::test("a_killed_demo_leaves_no_process_behind", a_killed_demo_leaves_no_process_behind),
    ];
    // One at a time: each looks whether it has left a process behind.
    let conclusion =
        libtest_mimic::run(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, trials);
    conclusion.exit_code()
}

fn arguments(seed: u32) -> DemoArgs {
    DemoArgs { connections: 4, requests: Some(6000), seconds: None, seed: Some(seed), json: false }
}

/// Plays the demo with a guest that does this at the takeover, and looks for what it leaves behind.
fn with_guest(takeover: Takeover, args: &DemoArgs) -> Result<Verdict, String> {
    with_nodes(None, takeover, args)
}

/// The same, with an instruction for the nodes.
fn with_nodes(instruction: Option<&str>, takeover: Takeover, args: &DemoArgs) -> Result<Verdict, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let guest = Guest::start(&folder.path().join(relay::GUEST), takeover);
    if let Some(instruction) = instruction {
        fs::write(folder.path().join(instruction), "").expect("a file");
    }
    let before = fs::read_dir(&folder).expect("a folder").count();
    let program = env::current_exe().expect("a program");
    let verdict = play(args, &program, folder.path()).map_err(|failure| failure.to_string());
    drop(guest);
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), before, "the demo left files behind");
    assert_eq!(children(std::process::id()), [0; 0], "the demo left processes behind");
    verdict
}

fn children(process: u32) -> Vec<u32> {
    let path = Path::new("/proc").join(format!("{process}/task/{process}/children"));
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().expect("a number")).collect()
}

/// Whether a process runs; one that has ended, and that nobody has asked about, does not.
fn runs(process: &u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn nothing_is_lost() -> Result<(), Failed> {
    let verdict = with_guest(Takeover::Exact, &arguments(1))?;
    assert!(verdict.ok, "{verdict}");
    assert!(verdict.requests >= 6000 && verdict.writes_acknowledged > 2000, "{verdict}");
    assert_eq!((verdict.acknowledged_lost, verdict.resets, verdict.premature_frames), (0, 0, 0), "{verdict}");
    // The relay takes over 50 ms after the death of the primary.
    assert!(verdict.takeover_ms >= 50.0 && verdict.first_reply_ms >= verdict.takeover_ms, "{verdict}");
    assert_eq!((verdict.guest_rx_bytes, verdict.log_bytes, verdict.link_bytes), relay::COUNTERS);
    assert_eq!(verdict.takeover_reported_ms, Some(relay::TAKEOVER_MS));
    assert_ne!(verdict.primary_pid, verdict.secondary_pid);
    let text = verdict.to_string();
    assert!(text.ends_with("went on where it was."), "{text}");
    let json = serde_json::to_value(&verdict).expect("JSON");
    for key in ["requests", "acknowledged_lost", "resets", "takeover_ms", "guest_rx_bytes", "log_bytes"] {
        assert!(json[key].is_number(), "{key}");
    }
    assert!(json["link_bytes"].is_u64() && json["primary_pid"].is_u64() && json["ok"].is_boolean());
    Ok(())
}

fn a_seed_repeats_the_requests() -> Result<(), Failed> {
    let one_connection = DemoArgs { connections: 1, requests: Some(1000), ..arguments(2) };
    let first = with_guest(Takeover::Exact, &one_connection)?;
    let second = with_guest(Takeover::Exact, &one_connection)?;
    assert_eq!((first.requests, first.writes_acknowledged), (second.requests, second.writes_acknowledged));
    Ok(())
}

fn one_forgotten_write_is_found() -> Result<(), Failed> {
    let verdict = with_guest(Takeover::ForgetOneWrite, &arguments(3))?;
    // Whoever reads the key next misses what was written to it since, and nobody else notices anything.
    assert!(!verdict.ok && verdict.acknowledged_lost > 0 && verdict.resets == 0, "{verdict}");
    assert_eq!(verdict.faults.len(), 1, "{verdict}");
    assert!(verdict.to_string().contains("\nFAILED"), "{verdict}");
    Ok(())
}

fn a_reset_is_counted() -> Result<(), Failed> {
    let verdict = with_guest(Takeover::ResetOneConnection, &arguments(4))?;
    assert!(!verdict.ok && verdict.acknowledged_lost == 0 && verdict.resets == 1, "{verdict}");
    Ok(())
}

fn a_guest_that_stays_silent_ends_the_demo() -> Result<(), Failed> {
    let failure = with_guest(Takeover::Silence, &arguments(5)).expect_err("no verdict");
    assert!(failure.starts_with("error: the guest has not answered for 15 s\nhint: "), "{failure}");
    Ok(())
}

fn a_node_that_ends_is_named() -> Result<(), Failed> {
    let failure = with_nodes(Some(relay::DIE), Takeover::Exact, &arguments(6)).expect_err("no verdict");
    assert!(failure.starts_with("error: the secondary (process "), "{failure}");
    assert!(failure.contains("ended by itself: exit status: 7\nhint: "), "{failure}");
    Ok(())
}

fn a_secondary_that_speaks_too_early() -> Result<(), Failed> {
    let verdict = with_nodes(Some(relay::SPEAK), Takeover::Exact, &arguments(7))?;
    assert!(!verdict.ok && verdict.premature_frames > 0, "{verdict}");
    Ok(())
}

/// What this program is as `demo`: a demo in `folder` that would go on for an hour.
fn endless_demo(folder: &Path) -> ExitCode {
    let program = env::current_exe().expect("a program");
    let args = DemoArgs { requests: None, seconds: Some(3600), ..arguments(8) };
    match play(&args, &program, folder) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => failure.exit().into(),
    }
}

/// Starts a demo, ends it by a signal when its nodes run, and looks for what is left of the nodes. Gives the exit code, and
/// what is left in its folder.
fn ended_by(signal: Signal) -> (Option<i32>, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let _guest = Guest::start(&folder.path().join(relay::GUEST), Takeover::Exact);
    let mut demo = Command::new(env::current_exe().expect("a program"));
    let mut demo = demo.arg("demo").arg(folder.path()).stderr(Stdio::null()).spawn().expect("a demo");
    until("its nodes run", || children(demo.id()).len() == 2);
    let nodes = children(demo.id());
    kill_process(Pid::from_child(&demo), signal).expect("a signal");
    let status = demo.wait().expect("an end");
    until("its nodes are gone", || !nodes.iter().any(runs));
    let left = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    (status.code(), left.map(|name| name.to_string_lossy().into_owned()).collect())
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not happen that {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn an_interrupted_demo_leaves_nothing_behind() -> Result<(), Failed> {
    for signal in [Signal::INT, Signal::TERM] {
        assert_eq!(ended_by(signal), (Some(1), vec![relay::GUEST.to_owned()]), "{signal:?}");
    }
    Ok(())
}

fn a_killed_demo_leaves_no_process_behind() -> Result<(), Failed> {
    let (code, _) = ended_by(Signal::KILL);
    assert_eq!(code, None);
    Ok(())
}
