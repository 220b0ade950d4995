//! Encrypted links between two ends in this process: who is let in, what a recorded handshake is worth, and what is carried.

use std::time::Duration;

use echovisor_event::{Digest, NodeId, Position, Term, VmId};
use echovisor_log::{
    SegmentStart,
    limits::BODY_MAX,
    link::{
        Address, Fingerprint, Heartbeat, Hello, Incoming, Keys, Link, LinkError, Listener, Message, Ours,
        PrivateKey, accept, dial, greet, welcome,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

const LATER: Duration = Duration::from_secs(10);

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn keys(own: &PrivateKey, peer: &PrivateKey) -> Keys {
    Keys::new(own, [peer.public()]).unwrap()
}

fn ours() -> Ours {
    Ours { vm: VmId([1; 16]), node: NodeId([2; 16]), term: Term(5), fingerprint: Fingerprint::default() }
}

fn hello() -> Hello {
    Hello::new(NodeId([3; 16]), Fingerprint::default())
}

async fn listen(keys: Keys) -> (Listener, Address) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), Some(keys)).await.unwrap();
    let address = listener.address().unwrap();
    (listener, address)
}

fn port(address: &Address) -> u16 {
    let Address::Tcp { port, .. } = address else { panic!("{address}") };
    *port
}

/// Two ends of one link, which know each other.
async fn pair() -> (Link, Link) {
    let (here, there) = (key(), key());
    let (listener, address) = listen(keys(&here, &there)).await;
    let far = keys(&there, &here);
    let dialled = tokio::spawn(async move { dial(&address, Some(&far), LATER).await });
    let link = listener.accept().await.unwrap().open().await.unwrap();
    (link, dialled.await.unwrap().unwrap())
}

#[tokio::test]
async fn the_same_keys_serve_both_directions_over_tcp_and_unix() {
    let dir = TempDir::new().unwrap();
    let nodes = [key(), key()];
    let unix = format!("unix:{}", dir.path().join("socket").display());
    for address in ["127.0.0.1:0", &unix] {
        // As before a takeover, and as after it.
        for (primary, secondary) in [(0, 1), (1, 0)] {
            let [primary, secondary] = [&nodes[primary], &nodes[secondary]];
            let listener =
                Listener::bind(&address.parse().unwrap(), Some(keys(primary, secondary))).await.unwrap();
            let target = listener.address().unwrap();
            let far = keys(secondary, primary);
            let dialled = tokio::spawn(async move {
                let mut link = dial(&target, Some(&far), LATER).await.unwrap();
                greet(&mut link, &hello(), LATER).await.unwrap();
                match link.receiver.receive().await.unwrap() {
                    Message::Batch(body) => assert_eq!(body, vec![5; BODY_MAX]),
                    other => panic!("{other:?}"),
                }
                assert!(matches!(link.receiver.receive().await, Err(LinkError::Closed)));
                (link.traffic().sent(), link.traffic().received())
            });
            let mut link = listener.accept().await.unwrap().open().await.unwrap();
            accept(&mut link, &ours(), LATER).await.unwrap();
            link.sender.send(&Message::Welcome(welcome(&ours(), false))).await.unwrap();
            link.sender.send(&Message::Batch(&vec![5; BODY_MAX])).await.unwrap();
            let traffic = link.traffic();
            drop(link);
            assert_eq!(dialled.await.unwrap(), (traffic.received(), traffic.sent()));
            // What is counted is what passes the socket: the handshake and 22 bytes with each 16 KiB.
            assert!(traffic.sent() > BODY_MAX as u64 + 22 * (BODY_MAX as u64 >> 14), "{traffic:?}");
        }
    }
}

#[tokio::test]
async fn a_dialled_stranger_is_refused_before_anything_is_said() {
    let [node, primary, impostor] = [key(), key(), key()];
    let (listener, address) = listen(keys(&impostor, &node)).await;
    let far = keys(&node, &primary);
    let dialled = tokio::spawn(async move { dial(&address, Some(&far), LATER).await });
    let opened = listener.accept().await.unwrap().open().await.err().unwrap();
    assert!(matches!(opened, LinkError::KeyRefused), "{opened}");
    match dialled.await.unwrap().err().unwrap() {
        error @ LinkError::UnknownKey { key } => {
            assert!(key == impostor.public() && error.hint().is_some(), "{error}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_stranger_who_dials_is_refused() {
    let [node, peer, stranger] = [key(), key(), key()];
    let (listener, address) = listen(keys(&node, &peer)).await;
    let far = keys(&stranger, &node);
    let dialled = tokio::spawn(async move {
        let mut link = dial(&address, Some(&far), LATER).await?;
        greet(&mut link, &hello(), LATER).await
    });
    match listener.accept().await.unwrap().open().await.err().unwrap() {
        LinkError::UnknownKey { key } => assert_eq!(key, stranger.public()),
        other => panic!("{other}"),
    }
    let told = dialled.await.unwrap().unwrap_err();
    assert!(matches!(told, LinkError::KeyRefused) && told.hint().is_some(), "{told}");
}

#[tokio::test]
async fn plain_text_and_encryption_do_not_meet() {
    let [node, peer] = [key(), key()];
    let (listener, address) = listen(keys(&node, &peer)).await;
    let dialled = tokio::spawn(async move {
        let mut link = dial(&address, None, LATER).await.unwrap();
        greet(&mut link, &hello(), LATER).await
    });
    let error = listener.accept().await.unwrap().open().await.err().unwrap();
    assert!(matches!(error, LinkError::Tls(_)), "{error}");
    let error = dialled.await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Wire(_)) && error.hint().is_some(), "{error}");

    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.address().unwrap();
    let dialled = tokio::spawn(async move { dial(&address, Some(&keys(&peer, &node)), LATER).await });
    let mut link = listener.accept().await.unwrap().open().await.unwrap();
    let error = accept(&mut link, &ours(), LATER).await.unwrap_err();
    assert!(matches!(error, LinkError::Wire(_)), "{error}");
    drop(link);
    dialled.await.unwrap().err().unwrap();
}

/// Everything that the secondary has sent, sent again byte for byte, to the primary that has answered it before.
#[tokio::test]
async fn a_recorded_handshake_is_worth_nothing() {
    let [node, peer] = [key(), key()];
    let (listener, address) = listen(keys(&node, &peer)).await;
    let target = port(&address);
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relayed: Address = format!("127.0.0.1:{}", relay.local_addr().unwrap().port()).parse().unwrap();
    let far = keys(&peer, &node);
    let dialled = tokio::spawn(async move {
        let mut link = dial(&relayed, Some(&far), LATER).await.unwrap();
        greet(&mut link, &hello(), LATER).await.unwrap();
    });
    let (near, _) = relay.accept().await.unwrap();
    let recording = tokio::spawn(async move {
        let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
        let mut near = Recorder { stream: near, read: Vec::new() };
        let _ = copy_bidirectional(&mut near, &mut far).await;
        near.read
    });
    let mut link = listener.accept().await.unwrap().open().await.unwrap();
    accept(&mut link, &ours(), LATER).await.unwrap();
    link.sender.send(&Message::Welcome(welcome(&ours(), false))).await.unwrap();
    dialled.await.unwrap();
    drop(link);
    let recorded = recording.await.unwrap();
    assert!(recorded.len() > 300, "{}", recorded.len());

    let mut replayed = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
    replayed.write_all(&recorded).await.unwrap();
    let incoming: Incoming = listener.accept().await.unwrap();
    let error = incoming.open().await.err().unwrap();
    assert!(matches!(error, LinkError::Tls(_)), "{error}");
    // It hears the start of a handshake, which tells it nothing, and then an end.
    let mut answer = Vec::new();
    let _ = replayed.read_to_end(&mut answer).await;
}

/// A stream that remembers what was read from it.
struct Recorder {
    stream: TcpStream,
    read: Vec<u8>,
}

impl tokio::io::AsyncRead for Recorder {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = std::pin::Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl tokio::io::AsyncWrite for Recorder {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// More than the buffers of encryption and socket hold, and a sender who is interrupted all the time: nothing is lost, nothing
/// stays behind in a buffer.
#[tokio::test]
async fn what_was_flushed_arrives_whoever_was_cancelled() {
    let (mut here, mut there) = pair().await;
    let start = SegmentStart { chain: Digest([7; 32]), ..SegmentStart::first(Term(1)) };
    let rounds = 300u64;
    let sending = tokio::spawn(async move {
        for round in 0..rounds {
            here.sender.queue(&Message::SegmentStart(start)).unwrap();
            here.sender.queue(&Message::Batch(&vec![round as u8; 30_000])).unwrap();
            here.sender
                .queue(&Message::Heartbeat(Heartbeat { stamp: round, ..Heartbeat::default() }))
                .unwrap();
            while !here.sender.is_flushed() {
                let _ = tokio::time::timeout(Duration::from_micros(1), here.sender.flush()).await;
            }
        }
        here.sender.send(&Message::Grant(Position(rounds))).await.unwrap();
        here
    });
    for round in 0..rounds {
        assert_eq!(there.receiver.receive().await.unwrap(), Message::SegmentStart(start));
        assert_eq!(there.receiver.receive().await.unwrap(), Message::Batch(&vec![round as u8; 30_000]));
        let Message::Heartbeat(heartbeat) = there.receiver.receive().await.unwrap() else { panic!() };
        assert_eq!(heartbeat.stamp, round);
    }
    assert_eq!(there.receiver.receive().await.unwrap(), Message::Grant(Position(rounds)));
    drop(sending.await.unwrap());
    assert!(matches!(there.receiver.receive().await, Err(LinkError::Closed)));
}

/// Messages that came in records of their own are all seen as soon as the first is, so that one answer serves for all.
#[tokio::test]
async fn what_is_here_already_is_taken_along() {
    let (mut here, mut there) = pair().await;
    for position in 0..10 {
        here.sender.send(&Message::Grant(Position(position))).await.unwrap();
    }
    for position in 0..10 {
        assert_eq!(there.receiver.receive().await.unwrap(), Message::Grant(Position(position)));
        assert_eq!(there.receiver.has_message(), position < 9);
    }
}
