//! What strangers say: on the link, to either side; on the control socket; in the arbiter's file.
//!
//! The first byte says who listens. Messages of the link come as parts, kind and body, and get the length that fits; or as
//! a raw stream.

#![no_main]

use std::{cell::RefCell, io::Cursor, time::Duration};

use echovisor_event::{Digest, NodeId, Term, VmId};
use echovisor_fuzz::parts;
use echovisor_log::{
    arbiter::Record,
    link::{Fingerprint, Hello, Link, LinkError, Message, Ours, accept, greet},
};
use echovisor_machine::{MachineConfig, MachineState};
use echovisor_tools::control::{Request, Response, Status};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

const PATIENCE: Duration = Duration::from_secs(3600);

fuzz_target!(|data: &[u8]| {
    let Some((listener, rest)) = data.split_first() else { return };
    match listener {
        0 => talk(frames(rest), true),
        1 => talk(frames(rest), false),
        2 => talk(rest.to_vec(), true),
        3 => talk(rest.to_vec(), false),
        4 => arbiter(rest),
        _ => control(rest),
    }
});

fn frames(data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (kind, body) in parts(data).filter_map(<[u8]>::split_first) {
        stream.extend((body.len() as u32).to_le_bytes());
        stream.push(*kind);
        stream.extend(body);
    }
    stream
}

/// A handshake, as either side, and then as many messages as are good.
fn talk(stream: Vec<u8>, primary: bool) {
    let fingerprint = Fingerprint { text: "cpu: a".into(), digest: Digest([1; 32]) };
    let mut link = Link::new(Cursor::new(stream), tokio::io::sink());
    let work = async {
        if primary {
            let ours = Ours { vm: VmId([2; 16]), node: NodeId([3; 16]), term: Term(5), fingerprint };
            let hello = accept(&mut link, &ours, PATIENCE).await?;
            assert!(hello.term <= ours.term && hello.vm.is_none_or(|vm| vm == ours.vm));
        } else {
            let hello = Hello::new(NodeId([4; 16]), fingerprint);
            let welcome = greet(&mut link, &hello, PATIENCE).await?;
            assert_eq!(welcome.fingerprint, hello.fingerprint.digest);
        }
        loop {
            let message = link.receiver.receive().await?;
            if let Message::SyncBegin(begin) = &message {
                let _ = MachineConfig::from_bytes(&begin.config);
                let _ = MachineState::from_bytes(&begin.state);
            }
            link.sender.queue(&message).expect("what can be received can be sent");
            link.sender.flush().await?;
        }
    };
    let end: Result<(), LinkError> = RUNTIME.with_borrow_mut(|runtime| runtime.block_on(work));
    let error = end.expect_err("every stream ends");
    let _ = (error.to_string(), error.hint());
}

fn arbiter(json: &[u8]) {
    if let Ok(record) = Record::from_json(json) {
        assert_eq!(Record::from_json(record.to_json().as_bytes()), Ok(record));
    }
}

fn control(line: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let again = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<Request>(&again).expect("it was written so"), request);
    }
    let _ = serde_json::from_slice::<Status>(line);
    let _ = serde_json::from_slice::<Response>(line);
}
