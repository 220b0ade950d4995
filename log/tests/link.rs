//! Links between two ends in this process: what fits together, what does not, and peers that are no Echovisor.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use echovisor_event::{Digest, NodeId, Position, Term, VmId};
use echovisor_log::{
    SegmentStart,
    limits::{BODY_MAX, VERSION},
    link::{
        Ack, Address, Fingerprint, Heartbeat, Hello, Keys, Link, LinkError, Listener, Message, Ours,
        PrivateKey, Refuse, RefuseCode, Resume, WireError, accept, dial, flush_at_once, greet, welcome,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(10);

fn fingerprint(cpu: &str) -> Fingerprint {
    let text = format!("release: 1\ncpu: {cpu}\nkvm: made up");
    Fingerprint { digest: Digest(*blake3::hash(text.as_bytes()).as_bytes()), text }
}

fn ours() -> Ours {
    Ours { vm: VmId([1; 16]), node: NodeId([2; 16]), term: Term(5), fingerprint: fingerprint("a") }
}

fn hello() -> Hello {
    Hello { vm: Some(ours().vm), term: Term(4), ..Hello::new(NodeId([3; 16]), fingerprint("a")) }
}

fn pair() -> (Link, Link) {
    let (here, there) = tokio::io::duplex(1 << 16);
    let ((read, write), (far_read, far_write)) = (tokio::io::split(here), tokio::io::split(there));
    (Link::new(read, write), Link::new(far_read, far_write))
}

/// On a thin link, on which much waits.
#[tokio::test]
async fn a_heartbeat_goes_before_what_is_queued_and_not_begun() {
    let (mut near, mut far) = pair();
    let bodies = [1, 2, 3].map(|byte| vec![byte; 1 << 20]);
    near.sender.queue(&Message::Keep("first".to_owned())).unwrap();
    for body in &bodies[..2] {
        near.sender.queue(&Message::Batch(body)).unwrap();
    }
    // Nobody reads: some of the first batch is taken, and no more.
    tokio::time::timeout(SOON, near.sender.flush()).await.unwrap_err();
    let heartbeat = |stamp| Heartbeat { stamp, watermark: Position(7), released: Position(6) };
    near.sender.queue_first(&Message::Heartbeat(heartbeat(1))).unwrap();
    near.sender.queue(&Message::Batch(&bodies[2])).unwrap();
    near.sender.queue_first(&Message::Heartbeat(heartbeat(2))).unwrap();

    let sent = tokio::spawn(async move { near.sender.flush().await.map(|()| near) });
    let mut come = Vec::new();
    while come.len() < 6 {
        come.push(match far.receiver.receive().await.unwrap() {
            Message::Keep(text) => text,
            Message::Batch(body) => format!("{} bytes of {}", body.len(), body[0]),
            Message::Heartbeat(heartbeat) => format!("heartbeat {}", heartbeat.stamp),
            other => panic!("{other:?}"),
        });
    }
    let [one, two, three] = [1, 2, 3].map(|byte| format!("{} bytes of {byte}", 1 << 20));
    assert_eq!(come, ["first", &one, "heartbeat 1", "heartbeat 2", &two, &three]);
    assert!(sent.await.unwrap().unwrap().sender.is_flushed());
}

/// What a connection begins with stays its beginning.
#[tokio::test]
async fn a_heartbeat_stays_behind_a_welcome() {
    let (mut near, mut far) = pair();
    near.sender.queue(&Message::Welcome(welcome(&ours(), false))).unwrap();
    near.sender.queue(&Message::Batch(b"batch")).unwrap();
    let heartbeat = Heartbeat { stamp: 1, watermark: Position(7), released: Position(6) };
    near.sender.queue_first(&Message::Heartbeat(heartbeat)).unwrap();
    near.sender.flush().await.unwrap();
    assert!(matches!(far.receiver.receive().await.unwrap(), Message::Welcome(_)));
    assert!(matches!(far.receiver.receive().await.unwrap(), Message::Heartbeat(_)));
    assert!(matches!(far.receiver.receive().await.unwrap(), Message::Batch(b"batch")));
}

/// Even while somebody still has the listener.
#[tokio::test]
async fn who_dials_a_closed_listener_is_refused_by_the_host() {
    let dir = TempDir::new().unwrap();
    let unix = format!("unix:{}", dir.path().join("socket").display());
    for address in ["127.0.0.1:0", &unix] {
        let listener = Listener::bind(&address.parse().unwrap(), None).await.unwrap();
        let target = listener.address().unwrap();
        dial(&target, None, LATER).await.unwrap();
        listener.close();
        let error = dial(&target, None, LATER).await.err().unwrap();
        let LinkError::Dial { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
}

#[tokio::test]
async fn two_nodes_meet_over_tcp_and_unix() {
    let dir = TempDir::new().unwrap();
    let unix = format!("unix:{}", dir.path().join("socket").display());
    for address in ["127.0.0.1:0", "[::1]:0", "localhost:0", &unix] {
        let address: Address = address.parse().unwrap();
        let listener = match Listener::bind(&address, None).await {
            // A host without IPv6.
            Err(LinkError::Listen { .. }) if address.to_string().starts_with("[::1]") => continue,
            other => other.unwrap(),
        };
        let target = listener.address().unwrap();
        let secondary = tokio::spawn(async move {
            let mut link = dial(&target, None, LATER).await.unwrap();
            let hello = Hello { resume: Some(Resume { segment: 7, sequence: 70 }), ..hello() };
            let welcome = greet(&mut link, &hello, LATER).await.unwrap();
            assert_eq!((welcome.vm, welcome.term, welcome.resumed), (ours().vm, Term(5), true));
            let ack = Ack { sequence: 9, executed: Position(1000), echo: 17, durable: true };
            link.sender.send(&Message::Ack(ack)).await.unwrap();
            let body = match link.receiver.receive().await.unwrap() {
                Message::Batch(body) => body.to_vec(),
                other => panic!("{other:?}"),
            };
            assert!(matches!(link.receiver.receive().await, Err(LinkError::Closed)));
            let traffic = link.traffic();
            (body, traffic.sent(), traffic.received())
        });
        let mut link = listener.accept().await.unwrap().open().await.unwrap();
        let hello = accept(&mut link, &ours(), LATER).await.unwrap();
        assert_eq!(hello.resume, Some(Resume { segment: 7, sequence: 70 }));
        link.sender.send(&Message::Welcome(welcome(&ours(), true))).await.unwrap();
        let expected = Ack { sequence: 9, executed: Position(1000), echo: 17, durable: true };
        assert_eq!(link.receiver.receive().await.unwrap(), Message::Ack(expected));
        link.sender.send(&Message::Batch(&vec![5; BODY_MAX])).await.unwrap();
        let traffic = link.traffic();
        drop(link);
        let (body, sent, received) = secondary.await.unwrap();
        assert_eq!(body, vec![5; BODY_MAX]);
        assert_eq!((traffic.received(), traffic.sent()), (sent, received));
        assert!(received > BODY_MAX as u64 && sent < 400, "{sent} {received}");
    }
    assert!(!dir.path().join("socket").exists());
}

#[tokio::test]
async fn who_does_not_fit_is_told_why() {
    let cases = [
        (Hello { vm: Some(VmId([9; 16])), ..hello() }, RefuseCode::WrongVm),
        (Hello { fingerprint: fingerprint("b"), ..hello() }, RefuseCode::Fingerprint),
        (Hello { term: Term(6), ..hello() }, RefuseCode::Superseded),
    ];
    for (hello, expected) in cases {
        let (mut here, mut there) = pair();
        let primary = tokio::spawn(async move { accept(&mut here, &ours(), LATER).await });
        let told = greet(&mut there, &hello, LATER).await.unwrap_err();
        let seen = primary.await.unwrap().unwrap_err();
        let LinkError::Refused { code, text } = told else { panic!("{told}") };
        assert_eq!(code, expected);
        assert_eq!(text, seen.to_string());
        if code == RefuseCode::Fingerprint {
            assert!(text.contains("`cpu: a` here, `cpu: b` there"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_secondary_checks_who_welcomes_it() {
    let cases = [
        Ours { vm: VmId([9; 16]), ..ours() },
        Ours { fingerprint: fingerprint("b"), ..ours() },
        Ours { term: Term(3), ..ours() },
    ];
    for wrong in cases {
        let (mut here, mut there) = pair();
        here.sender.send(&Message::Welcome(welcome(&wrong, false))).await.unwrap();
        let error = greet(&mut there, &hello(), LATER).await.unwrap_err();
        let named = matches!(
            error,
            LinkError::WrongVm { .. } | LinkError::Fingerprint { .. } | LinkError::Superseded { .. }
        );
        assert!(named, "{error}");
    }
    let (mut here, mut there) = pair();
    let refusal = Refuse { code: RefuseCode::Busy, text: "one is enough".to_owned() };
    here.sender.send(&Message::Refuse(refusal)).await.unwrap();
    let error = greet(&mut there, &hello(), LATER).await.unwrap_err();
    assert!(
        matches!(error, LinkError::Refused { code: RefuseCode::Busy, .. }) && error.hint().is_some(),
        "{error}"
    );
    // Without a virtual machine in mind, any will do.
    let (mut here, mut there) = pair();
    here.sender.send(&Message::Welcome(welcome(&ours(), false))).await.unwrap();
    greet(&mut there, &Hello { vm: None, ..hello() }, LATER).await.unwrap();
}

#[tokio::test]
async fn another_version_is_named_on_both_sides() {
    let (here, there) = tokio::io::duplex(1 << 16);
    let (read, write) = tokio::io::split(here);
    let mut link = Link::new(read, write);
    let primary = tokio::spawn(async move { accept(&mut link, &ours(), LATER).await });
    let mut raw = there;
    // A hello of a version whose body nobody here can know.
    raw.write_all(b"\x0a\x00\x00\x00\x01ECHO\x63\x00????").await.unwrap();
    let error = primary.await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Wire(WireError::Version { theirs: 99 })), "{error}");
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[4..7], [3, RefuseCode::Version as u8, 0]);
    let text = std::str::from_utf8(&answer[7..]).unwrap();
    assert_eq!(text, format!("the peer speaks version 99 of the link, we speak version {VERSION}"));
}

#[tokio::test]
async fn strangers_and_sleepers_get_an_error_soon() {
    let strangers: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        &[0; 64],
        &[0xff; 64],
        b"\x06\x00\x00\x00\x01NOPE\x01\x00",
        b"\x00\x00\x00\x00\x06",
    ];
    for bytes in strangers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, write) = listener.accept().await.unwrap().0.into_split();
        let mut link = Link::new(read, write);
        stranger.write_all(bytes).await.unwrap();
        let error = accept(&mut link, &ours(), LATER).await.unwrap_err();
        let named = matches!(error, LinkError::Wire(_) | LinkError::Unexpected { .. });
        assert!(named, "{bytes:?}: {error}");
    }
    // One who says nothing, one who stops in the middle of a word, and one who never reads.
    for bytes in [&b""[..], b"\x20\x00\x00\x00\x01ECHO"] {
        let (mut here, there) = tokio::io::duplex(64);
        here.write_all(bytes).await.unwrap();
        let (read, write) = tokio::io::split(there);
        let mut link = Link::new(read, write);
        let error = accept(&mut link, &ours(), SOON).await.unwrap_err();
        assert!(matches!(error, LinkError::Timeout { .. }) && error.hint().is_some(), "{error}");
    }
    let (here, there) = tokio::io::duplex(64);
    let (read, write) = tokio::io::split(there);
    let error = greet(&mut Link::new(read, write), &hello(), SOON).await.unwrap_err();
    assert!(matches!(error, LinkError::Timeout { .. }), "{error}");
    drop(here);
    // One who hangs up.
    for (bytes, count) in [(&b""[..], 0), (b"\x20\x00\x00\x00\x01ECHO", 9)] {
        let (mut here, there) = tokio::io::duplex(64);
        here.write_all(bytes).await.unwrap();
        drop(here);
        let (read, write) = tokio::io::split(there);
        let error = accept(&mut Link::new(read, write), &ours(), LATER).await.unwrap_err();
        match error {
            LinkError::Closed => assert_eq!(count, 0),
            LinkError::CutOff { bytes } => assert_eq!(bytes, count),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn messages_are_written_together_and_survive_cancelling() {
    let (mut here, mut there) = pair();
    let start = SegmentStart::first(Term(1));
    for round in 0..50u64 {
        here.sender.queue(&Message::SegmentStart(start)).unwrap();
        here.sender.queue(&Message::Batch(&vec![round as u8; 3000])).unwrap();
        here.sender.queue(&Message::Heartbeat(Heartbeat { stamp: round, ..Heartbeat::default() })).unwrap();
        here.sender.queue(&Message::Grant(Position(round))).unwrap();
    }
    let queued = here.sender.queued();
    let sending = tokio::spawn(async move {
        // The pipe is shorter than what is queued, so most of these are cancelled half-way.
        while tokio::time::timeout(Duration::from_millis(1), here.sender.flush()).await.is_err() {}
        here
    });
    let mut count = 0;
    while count < 200 {
        let received = tokio::time::timeout(Duration::from_millis(1), there.receiver.receive()).await;
        let Ok(message) = received else { continue };
        let round = count / 4;
        match (count % 4, message.unwrap()) {
            (0, message) => assert_eq!(message, Message::SegmentStart(start)),
            (1, message) => assert_eq!(message, Message::Batch(&vec![round as u8; 3000])),
            (2, Message::Heartbeat(heartbeat)) => assert_eq!(heartbeat.stamp, round),
            (3, message) => assert_eq!(message, Message::Grant(Position(round))),
            (_, message) => panic!("{message:?}"),
        }
        count += 1;
        tokio::task::yield_now().await;
    }
    assert!(!there.receiver.has_message());
    let here = sending.await.unwrap();
    assert_eq!(there.traffic().received(), queued as u64);
    assert_eq!(here.traffic().sent(), queued as u64);
}

#[tokio::test]
async fn what_the_pipe_takes_at_once_is_not_waited_for() {
    let (mut here, mut there) = pair();
    assert!(flush_at_once(None).await.is_none(), "there is nobody to write to");
    assert!(flush_at_once(Some(&mut here.sender)).await.is_none(), "there is nothing to write");
    here.sender.queue(&Message::Grant(Position(1))).unwrap();
    assert!(matches!(flush_at_once(Some(&mut here.sender)).await, Some(Ok(()))));
    let long = vec![7; 1 << 16];
    here.sender.queue(&Message::Batch(&long)).unwrap();
    assert!(flush_at_once(Some(&mut here.sender)).await.is_none(), "the pipe is shorter than that");
    assert!(here.sender.queued() > 0);
    assert_eq!(there.receiver.receive().await.unwrap(), Message::Grant(Position(1)));
    let (flushed, received) = tokio::join!(here.sender.flush(), there.receiver.receive());
    flushed.unwrap();
    assert_eq!(received.unwrap(), Message::Batch(&long));
    drop(there);
    here.sender.queue(&Message::Grant(Position(2))).unwrap();
    assert!(matches!(flush_at_once(Some(&mut here.sender)).await, Some(Err(_))));
}

#[test]
fn addresses_say_what_is_wrong_with_them() {
    for (text, address) in [
        ("host:1", Address::Tcp { host: "host".to_owned(), port: 1 }),
        ("[::1]:65535", Address::Tcp { host: "::1".to_owned(), port: 65535 }),
        ("unix:/run/echo", Address::Unix(PathBuf::from("/run/echo"))),
    ] {
        assert_eq!(text.parse::<Address>().unwrap(), address);
        assert_eq!(address.to_string(), text);
    }
    for text in ["", "host", "host:", "host:65536", ":1", "::1:1", "[::1:1", "unix:", "host:-1"] {
        let error = text.parse::<Address>().unwrap_err();
        assert!(matches!(error, LinkError::Address { .. }) && error.hint().is_some(), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_or_listened_on_is_said_clearly() {
    let address: Address = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&address, None).await.unwrap();
    let taken = listener.address().unwrap();
    let dir = TempDir::new().unwrap();
    let socket = Address::Unix(dir.path().join("socket"));
    let unix = Listener::bind(&socket, None).await.unwrap();
    for address in [&taken, &socket, &Address::Unix(dir.path().join("no/socket"))] {
        let error = Listener::bind(address, None).await.unwrap_err();
        assert!(matches!(error, LinkError::Listen { .. }) && error.hint().is_some(), "{error}");
    }
    let mode = std::fs::metadata(dir.path().join("socket")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    drop(listener);
    let [own, peer] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let keys = Keys::new(&own, [peer.public()]).unwrap();
    let nobody = Address::Unix(dir.path().join("nobody"));
    let nowhere: Address = "no-such-host.invalid:1".parse().unwrap();
    for address in [&taken, &nobody, &nowhere] {
        let error = dial(address, Some(&keys), LATER).await.err().unwrap();
        assert!(matches!(error, LinkError::Dial { .. }) && error.hint().is_some(), "{error}");
    }
    // A socket file whose listener died is replaced; one in use was not.
    std::mem::forget(unix);
    for elsewhere in ["192.0.2.1:7", "0.0.0.0:0", "[2001:db8::1]:7"] {
        let elsewhere: Address = elsewhere.parse().unwrap();
        for error in [
            dial(&elsewhere, None, LATER).await.err().unwrap(),
            Listener::bind(&elsewhere, None).await.err().unwrap(),
        ] {
            assert!(matches!(error, LinkError::Plaintext { .. }) && error.hint().is_some(), "{error}");
        }
    }
    let anywhere: Address = "0.0.0.0:0".parse().unwrap();
    Listener::bind(&anywhere, Some(keys)).await.unwrap();

    let stale = dir.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    Listener::bind(&Address::Unix(stale), None).await.unwrap();
}
