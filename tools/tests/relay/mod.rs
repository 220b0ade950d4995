//! A node that keeps no guest, but passes frames between the test's guest and the network.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use echovisor_tools::control::{Refusal, Request, Role, Status, serve};
use serde_json::Value;

// Beside the folder of the demo lie these files:
/// The guest's socket.
pub(crate) const GUEST: &str = "guest";
/// If it is there, the secondary shall end by itself.
pub(crate) const DIE: &str = "die";
/// If it is there, the secondary shall send while the primary lives.
pub(crate) const SPEAK: &str = "speak";

/// What the nodes say of `guest_rx_bytes`, `log_bytes`, `link_bytes`.
pub(crate) const COUNTERS: (u64, u64, u64) = (1000, 200, 300);
/// What the secondary says of its takeover.
pub(crate) const TAKEOVER_MS: f64 = 12.5;

/// How long the secondary waits when the primary is gone.
const SUSPICION: Duration = Duration::from_millis(50);

/// Plays a node.
pub(crate) fn run(role: &str, arguments: &[String]) -> ExitCode {
    let argument = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name);
        arguments[place.expect(name) + 1].clone()
    };
    let socket = |name: &str| PathBuf::from(argument(name).strip_prefix("unix:").expect("a socket"));
    let net = socket("--net");
    let stage = net.parent().and_then(Path::parent).expect("the folder above the demo's").to_owned();
    assert!(argument("--arbiter").starts_with("file:"));
    let is_primary = role == "primary";
    if is_primary {
        assert_eq!(argument("--guest"), "kv");
        // The link: whoever holds the other end sees this process die.
        let listener = UnixListener::bind(socket("--listen")).expect("a link");
        thread::spawn(move || {
            let mut peers = Vec::new();
            peers.extend(listener.incoming().take(2));
        });
        thread::spawn(move || forward(&net, &stage));
    } else if stage.join(DIE).exists() {
        eprintln!("I was told to end.");
        return ExitCode::from(7);
    } else {
        let link = UnixStream::connect(socket("--join")).expect("a link");
        thread::spawn(move || follow(link, &net, &stage));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        let control = PathBuf::from(argument("--control"));
        let _server = serve(&control, move |request| answer(is_primary, request)).expect("a control socket");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn answer(is_primary: bool, request: Request) -> Result<Value, Refusal> {
    if request != Request::Status {
        return Err(Refusal { message: "no".to_owned(), hint: "none".to_owned() });
    }
    let mut status = Status::new(if is_primary { Role::Primary } else { Role::Secondary });
    (status.guest_rx_bytes, status.log_bytes, status.link_bytes) = COUNTERS;
    status.protected = is_primary;
    status.takeover_ms = (!is_primary).then_some(TAKEOVER_MS);
    Ok(serde_json::to_value(status).expect("JSON"))
}

/// Waits for the death of the primary, then goes on in its place.
fn follow(mut link: UnixStream, net: &Path, stage: &Path) {
    if stage.join(SPEAK).exists() {
        let mut stream = UnixStream::connect(net).expect("a network");
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
        stream.write_all(&(frame.len() as u32).to_be_bytes()).expect("a network");
        stream.write_all(&frame).expect("a network");
        // It stays connected: the switch forgets those who leave.
        thread::spawn(move || stream.read_to_end(&mut Vec::new()));
    }
    let _ = link.read(&mut [0]);
    thread::sleep(SUSPICION);
    forward(net, stage);
}

/// Passes frames both ways until either side ends.
fn forward(net: &Path, stage: &Path) {
    let net = UnixStream::connect(net).expect("a network");
    let guest = UnixStream::connect(stage.join(GUEST)).expect("a guest");
    let copy = |mut from: UnixStream, mut to: UnixStream| thread::spawn(move || io::copy(&mut from, &mut to));
    let there = copy(net.try_clone().expect("a socket"), guest.try_clone().expect("a socket"));
    let back = copy(guest, net);
    let _ = (there.join(), back.join());
}
