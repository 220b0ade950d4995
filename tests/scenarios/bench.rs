//! `echovisor bench`, with loads of a second each. What the figures are depends on the host; that they are there does not.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use echovisor_tests::{echovisor, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What scripts rely on.
const KEYS: [&str; 23] = [
    "policy",
    "workload",
    "round",
    "requests_per_second",
    "p50_us",
    "p99_us",
    "p999_us",
    "link_bytes",
    "guest_rx_bytes",
    "guest_tx_bytes",
    "primary_rss_bytes",
    "secondary_rss_bytes",
    "seconds",
    "rate",
    "delay_ms",
    "payload",
    "primary_cpu_us_per_request",
    "requests",
    "flushes",
    "round_trip_us",
    "wake_up_us",
    "replay_seconds",
    "busy_seconds",
];

fn bench(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(echovisor());
    command.current_dir(folder).env("TMPDIR", folder).arg("bench").args(arguments.split(' '));
    command
}

fn must_succeed(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("echovisor can be started");
    let (printed, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}\nended with {status}\n{printed}\n{said}");
    printed.into_owned()
}

#[test]
fn policies_are_measured_and_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = "--policy unprotected,replay --workload rate,idle --rounds 1 --seconds 1 --arrivals 500 --rate 100mbit \
                     --delay 1ms --json rows.json --html page.html --plot plot.svg";
    let printed = must_succeed(bench(folder.path(), arguments));
    for title in ["Network bandwidth", "Response time", "Memory", "Throughput", "Aims"] {
        assert!(printed.contains(&format!("### {title}, link of 100 Mbit/s, 1ms each way\n")), "{printed}");
    }

    for aim in [
        "| idle: link kbit/s, replay ",
        "| rate: p50 ms, replay − unprotected; at most round trip + 4 wake-ups ",
    ] {
        assert!(printed.contains(aim), "{printed}");
    }

    let read = |name: &str| read(folder.path(), name);
    let rows: Vec<Value> = serde_json::from_str(&read("rows.json")).expect("JSON");
    let cases: Vec<_> = rows.iter().map(|row| (&row["workload"], &row["policy"])).collect();
    let expected = [("rate", "unprotected"), ("rate", "replay"), ("idle", "unprotected"), ("idle", "replay")];
    assert_eq!(cases.len(), expected.len(), "{rows:?}");
    assert!(
        cases
            .iter()
            .zip(expected)
            .all(|(found, (workload, policy))| *found.0 == workload && *found.1 == policy)
    );
    for row in &rows {
        let is_protected = row["policy"] == "replay";
        assert!(KEYS.iter().all(|key| row.get(key).is_some()), "{row}");
        assert_eq!(row["link_bytes"].as_u64().expect("a count") > 0, is_protected, "{row}");
        assert_eq!(row["secondary_rss_bytes"].is_number(), is_protected, "{row}");
        assert!(row["primary_rss_bytes"].as_u64() > Some(1 << 20), "{row}");
        if row["workload"] == "rate" {
            assert_eq!((&row["requests"], row["unanswered"].as_u64()), (&500.into(), Some(0)), "{row}");
            assert!(row["guest_rx_bytes"].as_u64() > Some(500 * 60), "{row}");
            assert!(row["p50_us"].as_f64() <= row["p999_us"].as_f64(), "{row}");
            // What leaves waits for the link, there and back.
            assert!(!is_protected || row["p50_us"].as_f64() >= Some(2000.0), "{row}");
            assert_eq!(row["flushes"].as_u64().expect("a count") > 0, is_protected, "{row}");
            assert!(!is_protected || row["round_trip_us"].as_f64() >= Some(2000.0), "{row}");
            assert!(!is_protected || row["wake_up_us"].as_f64() > Some(0.0), "{row}");
        } else {
            assert!(row["requests_per_second"].is_null(), "{row}");
        }
    }
    let (plot, page) = (read("plot.svg"), read("page.html"));
    assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"), "{plot}");
    assert!(page.contains("<td class=\"name\">replay</td>") && page.contains("<svg "), "{page}");
    must_be_empty_but(folder.path(), &["page.html", "plot.svg", "rows.json"]);
}

#[test]
fn recordings_are_replayed_and_links_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = "--policy recorded,checkpoint --workload kv,lone --rounds 1 --seconds 1 --rate none,10mbit --json rows.json \
                     --plot links.svg";
    let printed = must_succeed(bench(folder.path(), arguments));
    assert!(printed.contains("| kv: time of a replay / busy time of its recording "), "{printed}");
    let rows: Vec<Value> = serde_json::from_str(&read(folder.path(), "rows.json")).expect("JSON");
    assert_eq!(rows.len(), 2 * 2 * 2, "{rows:?}");
    for row in &rows {
        let is_replayed = row["policy"] == "recorded" && row["workload"] == "kv";
        assert_eq!(row["replay_seconds"].as_f64() > Some(0.0), is_replayed, "{row}");
        assert_eq!(row["busy_seconds"].as_f64() > Some(0.0), is_replayed, "{row}");
    }
    let plot = read(folder.path(), "links.svg");
    assert!(plot.contains("thinner link") && plot.contains(">10 Mbit/s<"), "{plot}");
    must_be_empty_but(folder.path(), &["links.svg", "rows.json"]);
}

#[test]
fn an_interrupted_bench_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = bench(folder.path(), "--policy replay --workload idle --rounds 1 --seconds 3600");
    let mut child = command.spawn().expect("echovisor can be started");
    let nodes = || {
        let below =
            |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let own = below(folder.path()).flat_map(|bench| below(&bench).collect::<Vec<_>>());
        own.filter(|run| run.join("secondary.control").exists()).count()
    };
    wait_for(
        "a secondary of the bench",
        || if nodes() > 0 { Ok(()) } else { Err("there is none".to_owned()) },
    );
    kill_process(Pid::from_child(&child), Signal::INT).expect("a child of this process");
    let status = child.wait().expect("a child of this process");
    assert_eq!(status.code(), Some(1), "it failed, and said so");
    must_be_empty_but(folder.path(), &[]);
    wait_for("the end of all nodes", || match users_of(folder.path()) {
        users if users.is_empty() => Ok(()),
        users => Err(format!("{users:?}")),
    });
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect("a file that was asked for")
}

fn must_be_empty_but(folder: &Path, files: &[&str]) {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.file_name());
    let mut left: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    left.sort();
    assert_eq!(left, files);
}

/// Processes whose command line names the folder.
fn users_of(folder: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("cmdline"));
    let lines =
        processes.filter_map(|file| Some(String::from_utf8_lossy(&fs::read(file).ok()?).into_owned()));
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
}
