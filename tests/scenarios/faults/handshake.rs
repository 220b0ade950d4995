//! Whoever says hello or welcome in another version, of another term, for another machine or on another kind of host, is sent
//! away with the reason, and the pair notices nothing.

use std::net::SocketAddr;

use echovisor_event::{Digest, NodeId, Term, VmId};
use echovisor_log::link::{Fingerprint, Hello, Link, LinkError, Message, RefuseCode, Welcome, greet};
use echovisor_tests::{Guest, LIMIT, Lab, Node, Role, scenario};
use echovisor_tools::node::fingerprint;
use tokio::net::{TcpListener, TcpStream};

/// The link's address: on one host it is plain text, which a test can speak.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 7000);

const COUNTER: Guest = Guest { name: "counter", arguments: "every=1000" };

fn address() -> SocketAddr {
    ADDRESS.into()
}

fn stranger() -> Hello {
    Hello::new(NodeId([9; 16]), fingerprint().expect("a host that is fit"))
}

/// A node of a pair on one host.
fn start(lab: &Lab, command: &str, more: &[&str]) -> Node {
    let arbiter = format!("file:{}", lab.arbiter().display());
    let common = ["--arbiter", &arbiter];
    let arguments: Vec<String> = common.iter().chain(more).map(ToString::to_string).collect();
    Node::start(lab.scene, &lab.primary.namespace, command, &arguments)
}

fn start_primary(lab: &Lab) -> Node {
    let guest = ["--guest", COUNTER.name, "--guest-args", COUNTER.arguments];
    start(lab, "primary", &[&guest[..], &["--listen", &address().to_string()]].concat())
}

fn start_secondary(lab: &Lab) -> Node {
    start(lab, "secondary", &["--join", &address().to_string()])
}

/// Runs something with sockets, where the nodes live.
fn on_host<T: Send>(lab: &Lab, act: impl AsyncFnOnce() -> T + Send) -> T {
    lab.primary.namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(act())
    })
}

fn link(stream: TcpStream) -> Link {
    let (read, write) = stream.into_split();
    Link::new(read, write)
}

#[test]
fn a_secondary_of_another_kind_is_refused() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let (primary, secondary) = (start_primary(&lab), start_secondary(&lab));
        primary.wait_until("protected", |status| status.protected);
        let elsewhere = Fingerprint { text: "elsewhere".to_owned(), digest: Digest([7; 32]) };
        let cases = [
            (Hello { version: stranger().version + 1, ..stranger() }, RefuseCode::Version),
            (Hello { term: Term(99), ..stranger() }, RefuseCode::Superseded),
            (Hello { vm: Some(VmId([1; 16])), ..stranger() }, RefuseCode::WrongVm),
            (Hello { fingerprint: elsewhere, ..stranger() }, RefuseCode::Fingerprint),
            (stranger(), RefuseCode::Busy),
        ];
        for (hello, expected) in cases {
            let answer = on_host(&lab, async || {
                let stream = TcpStream::connect(address()).await.expect("the primary listens");
                greet(&mut link(stream), &hello, LIMIT).await
            });
            match answer {
                Err(LinkError::Refused { code, .. }) => assert_eq!(code, expected, "{hello:?}"),
                other => panic!("{hello:?} was answered with {other:?}"),
            }
        }
        let status = primary.status().expect("a status");
        assert!(status.protected && status.term == 1, "{status:?}");
        assert_eq!(secondary.status().expect("a status").role, Role::Secondary);
        primary.stop();
    });
}

#[test]
fn a_primary_of_another_version_is_left_alone() {
    scenario(|scene| {
        let lab = Lab::new(scene);
        let secondary = start_secondary(&lab);
        let ours = stranger();
        let welcome = Welcome {
            version: ours.version + 1,
            vm: VmId([1; 16]),
            node: ours.node,
            term: Term(1),
            fingerprint: ours.fingerprint.digest,
            resumed: false,
        };
        on_host(&lab, async || {
            let listener = TcpListener::bind(address()).await.expect("an address");
            let (stream, _) = listener.accept().await.expect("the secondary dials");
            let mut link = link(stream);
            let hello = link.receiver.receive().await.expect("a message");
            assert!(matches!(hello, Message::Hello(_)), "{hello:?}");
            link.sender.send(&Message::Welcome(welcome)).await.expect("it listens");
            assert!(link.receiver.receive().await.is_err(), "it goes on with another version");
        });
        let primary = start_primary(&lab);
        primary.wait_until("protected", |status| status.protected);
        let said = secondary.process.said();
        assert!(said.contains("version"), "it did not say what was wrong: {said}");
        primary.stop();
    });
}
