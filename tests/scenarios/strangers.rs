//! A stranger on the link: whatever he tries, he is refused and counted, and a pair under load does not notice.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use echovisor_event::{NodeId, Term, VmId};
use echovisor_log::link::{Address, Hello, LinkError, Message, RefuseCode, WireError, dial, greet};
use echovisor_tests::{KV, LIMIT, Lab, Load, Node, Role, Site, Status, key, scenario, wait_for};
use echovisor_tools::{
    key_file::{self, public_path},
    node::fingerprint,
};

/// Where the primary waits for its secondary.
const PRIMARY: &str = "10.1.0.1:7000";

/// Where the secondary finds it: a relay on its own host.
const RELAY: &str = "127.0.0.1:7001";

/// So long that a busy host is not taken for a dead one: nobody dies here.
const PATIENT: [&str; 2] = ["--suspicion", "10s"];

/// Connections of one flood: many times the places of a primary's door.
const MANY: u64 = 200;

#[test]
fn strangers_change_nothing_for_a_pair_under_load() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let primary = lab.primary_with(&lab.primary, KV, &PATIENT);
        let relay = Relay::start(&lab.secondary);
        let join =
            [&["--join", RELAY][..], &PATIENT].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
        let secondary = lab.node(&lab.secondary, "secondary", &[&join]);
        let before = primary.wait_until("protected", |status| status.protected);
        let load = Load::start(&lab, fastrand::u64(..));
        load.wait_for_replies(500);
        let site = &lab.secondary;

        let attacks: [(&str, &str, &dyn Fn() -> u64); 7] = [
            ("a port scan", "hung_up", &|| {
                (0..MANY).for_each(|_| drop(connect(site)));
                MANY
            }),
            ("garbage", "gibberish", &|| {
                let oversized_record = b"\x16\x03\x01\xff\xff".repeat(1000);
                let plain_hello = b"\x0a\x00\x00\x00\x01ECHO\x01\x00????";
                let oversized_frame = b"\xff\xff\xff\x7f\x0a";
                let garbage = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 4096]];
                let garbage =
                    garbage.into_iter().chain([&oversized_record[..], plain_hello, oversized_frame]);
                garbage.map(|bytes| must_be_sent_away(connect(site), bytes)).count() as u64
            }),
            ("a recorded handshake", "gibberish", &|| {
                must_be_sent_away(connect(site), &relay.recorded());
                1
            }),
            ("a slow handshake", "silent", &|| {
                let bytes = relay.recorded();
                let mut slow = connect(site);
                let mut pieces = bytes.chunks(1);
                wait_for("the primary to lose its patience", || match pieces.next() {
                    Some(piece) => {
                        slow.write_all(piece).err().map_or(Err("it listens".to_owned()), |_| Ok(()))
                    }
                    None => Ok(()),
                });
                must_be_sent_away(slow, &[]);
                1
            }),
            ("silence", "crowded_out", &|| {
                let silent: Vec<TcpStream> = (0..MANY).map(|_| connect(site)).collect();
                silent.into_iter().for_each(|stream| must_be_sent_away(stream, &[]));
                MANY
            }),
            ("a strange key", "unknown_key", &|| {
                stranger(&lab);
                1
            }),
            ("the right key and the wrong hello", "misfit", &|| {
                site.namespace.enter(|| wrong_hellos(&lab));
                WRONG
            }),
        ];
        for (what, reason, attack) in attacks {
            let earlier = refused(&primary.status().expect("a status"));
            let count = attack();
            let status = primary.wait_until(&format!("done with {what}"), |status| {
                refused(status)["refused"] >= earlier["refused"] + count
            });
            let reason = format!("refused_{reason}");
            let counted = |counts: &BTreeMap<String, u64>| counts.get(&reason).copied().unwrap_or_default();
            assert!(counted(&refused(&status)) > counted(&earlier), "{what}: {:?}", refused(&status));
            println!("{what}: {:?}", refused(&status));
            load.wait_for_replies(200);
        }

        // All places are taken, again and again, while the real one has to come back.
        let flood = Flood::start(site);
        relay.cut();
        wait_for("the secondary to be back", || {
            let said = primary.process.said();
            if said.contains("the link to the secondary is lost") { Ok(()) } else { Err(said) }
        });
        primary.wait_until("connected again", |status| status.more["mode"] == "protected");
        load.wait_for_replies(500);
        flood.stop();

        let verdict = load.finish();
        println!("{verdict}");
        verdict.must_be_clean();
        let status = primary.status().expect("a status");
        assert_eq!(
            (status.role, status.term, status.divergences),
            (Role::Primary, before.term, 0),
            "{status:?}"
        );
        assert!(status.protected, "{status:?}");
        let said = primary.process.said();
        assert_eq!(said.matches("joins").count(), 1, "another secondary joined: {said}");
        assert!(
            said.lines().filter(|line| line.contains("was refused")).count() < 100,
            "it says too much: {said}"
        );
        let status = secondary.status().expect("a status");
        assert_eq!((status.role, status.divergences), (Role::Secondary, 0), "{status:?}");
        for said in [said, secondary.process.said()] {
            assert!(!said.contains("panicked"), "{said}");
        }
        primary.stop();
    });
}

/// Whoever has taken the primary's address is not followed, and does not keep the secondary from the real one.
#[test]
fn a_secondary_does_not_follow_an_impostor() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let own = key(scene);
        let arbiter = format!("file:{}", scene.path("impostor").display());
        let mut arguments = KV.words();
        arguments
            .extend(["--wait-for-secondary", "--listen", PRIMARY, "--arbiter", &arbiter].map(String::from));
        arguments.extend(keys(&own, &lab.secondary));
        let mut impostor = Node::start(scene, &lab.primary.namespace, "primary", &arguments);
        let secondary = lab.secondary(&lab.secondary, &lab.primary);
        wait_for("the secondary to notice", || {
            let said = secondary.process.said();
            if said.contains("the peer is a stranger") { Ok(()) } else { Err(said) }
        });
        impostor.wait_until("left alone", |status| refused(status)["refused"] >= 2);
        let status = secondary.status().expect("a status");
        assert_eq!((status.more["mode"].as_str(), status.log_bytes), (Some("dialling"), 0), "{status:?}");
        impostor.process.kill();
        let primary = lab.primary(&lab.primary, KV);
        primary.wait_until("protected", |status| status.protected);
        primary.stop();
    });
}

/// What holds the guest's state is its owner's, even where the user lets everybody read new files.
#[test]
fn what_a_node_writes_is_its_owner_s_alone() {
    scenario(|scene| {
        rustix::process::umask(rustix::fs::Mode::empty());
        let lab = Lab::new(scene);
        let folder = scene.path("store");
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a mode");
        let store = ["--store", folder.to_str().expect("a path in UTF-8")];
        let primary = lab.primary_with(&lab.primary, KV, &store);
        let secondary = lab.secondary(&lab.secondary, &lab.primary);
        let load = Load::start(&lab, 1);
        load.wait_for_replies(500);
        for path in [primary.control(), secondary.control(), &lab.arbiter(), &lab.primary.key] {
            let mode = fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
        assert!(
            fs::read_dir(folder.join("snapshots/manifests")).expect("a folder").count() > 0,
            "nothing was stored"
        );
        must_be_private(&folder);
        load.finish().must_be_clean();
        primary.stop();
        must_be_private(&folder);
    });
}

/// Checks that nobody else can read a file in `folder`, or enter the folder that it is in.
fn must_be_private(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
    }
}

/// Who was refused, by reason, as the primary's status tells.
fn refused(status: &Status) -> BTreeMap<String, u64> {
    let counts = status.more.iter().filter(|(name, _)| name.starts_with("refused"));
    counts.map(|(name, value)| (name.clone(), value.as_u64().expect("a count"))).collect()
}

/// A key, and the public one of `site` as its peer's, as arguments.
fn keys(own: &Path, site: &Site) -> [String; 4] {
    let [own, peer] = [own.to_owned(), public_path(&site.key)].map(|path| path.display().to_string());
    ["--key".to_owned(), own, "--peer".to_owned(), peer]
}

fn connect(site: &Site) -> TcpStream {
    wait_for("a connection to the primary", || {
        site.namespace.enter(|| TcpStream::connect(PRIMARY)).map_err(|error| error.to_string())
    })
}

/// Sends `bytes` and waits until the primary hangs up.
fn must_be_sent_away(mut stream: TcpStream, bytes: &[u8]) {
    // It may hang up before it has read everything.
    let _ = stream.write_all(bytes);
    stream.set_read_timeout(Some(LIMIT)).expect("a socket has a timeout");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the primary did not hang up: {error}"),
    }
}

/// A secondary with a key of its own: it knows the primary, but the primary does not know it.
fn stranger(lab: &Lab<'_>) {
    let own = key(lab.scene);
    let arbiter = format!("file:{}", lab.arbiter().display());
    let mut arguments = ["--join", PRIMARY, "--arbiter", &arbiter].map(String::from).to_vec();
    arguments.extend(keys(&own, &lab.primary));
    let stranger = Node::start(lab.scene, &lab.secondary.namespace, "secondary", &arguments);
    wait_for("the stranger to be told", || {
        let said = stranger.process.said();
        if said.contains("the peer does not take this node's key") { Ok(()) } else { Err(said) }
    });
    assert!(!stranger.status().expect("a status").protected);
}

/// How many hellos are wrong.
const WRONG: u64 = 5;

/// Shows the right key and says a hello that does not fit; then one that fits, but there is a secondary already.
fn wrong_hellos(lab: &Lab<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let keys = key_file::read(&lab.secondary.key, &[public_path(&lab.primary.key)]);
    let keys = keys.unwrap_or_else(|failure| panic!("{failure}"));
    let right = Hello {
        suspicion_ms: 60_000,
        ..Hello::new(NodeId([9; 16]), fingerprint().unwrap_or_else(|failure| panic!("{failure}")))
    };
    let mut elsewhere = right.clone();
    elsewhere.fingerprint.digest.0[0] ^= 1;
    let address: Address = PRIMARY.parse().expect("an address");
    let hellos = [
        (Hello { vm: Some(VmId([9; 16])), ..right.clone() }, RefuseCode::WrongVm),
        (Hello { term: Term(99), ..right.clone() }, RefuseCode::Superseded),
        (Hello { version: 99, ..right.clone() }, RefuseCode::Version),
        (elsewhere, RefuseCode::Fingerprint),
        (right, RefuseCode::Busy),
    ];
    runtime.block_on(async {
        for (hello, expected) in hellos {
            let mut link = dial(&address, Some(&keys), LIMIT).await.expect("the right key");
            match greet(&mut link, &hello, LIMIT).await {
                Err(LinkError::Refused { code, .. }) => assert_eq!(code, expected),
                other => panic!("{other:?}"),
            }
        }
        // As long as a batch may be; but this is where a hello belongs.
        let mut link = dial(&address, Some(&keys), LIMIT).await.expect("the right key");
        let _ = link.sender.send(&Message::Batch(&vec![0; 1 << 20])).await;
        match link.receiver.receive().await {
            Ok(Message::Refuse(refuse)) => assert_eq!(refuse.code, RefuseCode::Protocol),
            Err(LinkError::Closed | LinkError::Io { .. } | LinkError::Wire(WireError::NotEchovisor)) => {}
            other => panic!("{other:?}"),
        }
    });
}

/// Connections that say nothing, as many as there are places and more, renewed as soon as they are sent away.
struct Flood {
    ended: Arc<Mutex<bool>>,
    thread: thread::JoinHandle<()>,
}

impl Flood {
    fn start(site: &Site) -> Flood {
        let ended = Arc::new(Mutex::new(false));
        let told = ended.clone();
        // A thread stays in the namespace in which it was started.
        let thread = site.namespace.enter(|| {
            thread::spawn(move || {
                let mut silent = Vec::new();
                while !*told.lock().expect("a lock") {
                    silent.truncate(MANY as usize);
                    silent.extend(TcpStream::connect(PRIMARY));
                    silent.rotate_right(1);
                    thread::sleep(Duration::from_millis(5));
                }
            })
        });
        Flood { ended, thread }
    }

    fn stop(self) {
        *self.ended.lock().expect("a lock") = true;
        self.thread.join().expect("the flood ends");
    }
}

/// Passes a secondary's connection on to the primary, and keeps what the secondary said first.
struct Relay {
    passed: Arc<Mutex<Passed>>,
}

#[derive(Default)]
struct Passed {
    /// From the first connection.
    bytes: Vec<u8>,
    /// Both ends of the last connection.
    streams: Vec<TcpStream>,
}

impl Relay {
    /// What is recorded: a handshake, and some of what follows.
    const ENOUGH: usize = 4096;

    fn start(site: &Site) -> Relay {
        let listener = site.namespace.enter(|| TcpListener::bind(RELAY)).expect("a port");
        let passed = Arc::new(Mutex::new(Passed::default()));
        let relay = Relay { passed: passed.clone() };
        site.namespace.enter(|| thread::spawn(move || Relay::work(&listener, &passed)));
        relay
    }

    fn work(listener: &TcpListener, passed: &Arc<Mutex<Passed>>) {
        for near in listener.incoming().flatten() {
            // While the primary is not there the secondary finds out by itself.
            let Ok(far) = TcpStream::connect(PRIMARY) else { continue };
            let both = [&near, &far].map(|stream| stream.try_clone().expect("a socket"));
            let passed = passed.clone();
            passed.lock().expect("a lock").streams = both.into();
            let back = [&far, &near].map(|stream| stream.try_clone().expect("a socket"));
            thread::spawn(move || pass(near, far, |bytes| passed.lock().expect("a lock").record(bytes)));
            let [far, near] = back;
            thread::spawn(move || pass(far, near, |_| ()));
        }
    }

    fn recorded(&self) -> Vec<u8> {
        let bytes = self.passed.lock().expect("a lock").bytes.clone();
        assert!(bytes.len() > 300, "no handshake has passed");
        bytes
    }

    /// Cuts the connection.
    fn cut(&self) {
        for stream in self.passed.lock().expect("a lock").streams.drain(..) {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Passed {
    fn record(&mut self, bytes: &[u8]) {
        let room = Relay::ENOUGH.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Moves bytes until one of the ends is gone.
fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        seen(&bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
