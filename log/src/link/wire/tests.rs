//! Every message, there and back, and what is none.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    limits::BODY_MAX,
    link::{HandOver, Ready, SyncAsk, SyncBegin},
};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn position() -> impl Strategy<Value = Position> {
    any::<u64>().prop_map(Position)
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    (".{0,80}", digest()).prop_map(|(text, digest)| Fingerprint { text, digest })
}

/// Every kind of message, but for those that are raw bytes.
fn message() -> impl Strategy<Value = Message<'static>> {
    let node = || any::<[u8; 16]>().prop_map(NodeId);
    let vm = || any::<[u8; 16]>().prop_map(VmId);
    let term = || any::<u64>().prop_map(Term);
    let resume = (any::<u64>(), any::<u64>()).prop_map(|(segment, sequence)| Resume { segment, sequence });
    prop_oneof![
        (node(), fingerprint(), option::of(vm()), term(), option::of(resume), any::<u64>()).prop_map(
            |(node, fingerprint, vm, term, resume, suspicion_ms)| {
                Message::Hello(Hello { version: VERSION, node, fingerprint, vm, term, resume, suspicion_ms })
            }
        ),
        (vm(), node(), term(), digest(), any::<bool>()).prop_map(|(vm, node, term, fingerprint, resumed)| {
            Message::Welcome(Welcome { version: VERSION, vm, node, term, fingerprint, resumed })
        }),
        (0u16..7, ".{0,80}")
            .prop_map(|(code, text)| { Message::Refuse(Refuse { code: RefuseCode::from_code(code), text }) }),
        (position(), any::<u64>(), digest(), digest(), vec(any::<u8>(), 0..100), vec(any::<u8>(), 0..100))
            .prop_map(|(position, memory, root, digest, config, state)| {
                Message::SyncBegin(SyncBegin { position, memory, root, digest, config, state })
            }),
        (any::<u8>(), any::<u32>(), vec(any::<u32>(), 0..16))
            .prop_map(|(level, left, numbers)| { Message::SyncAsk(SyncAsk { level, left, numbers }) }),
        (position(), digest()).prop_map(|(position, digest)| Message::Ready(Ready { position, digest })),
        position().prop_map(Message::Grant),
        (any::<u64>(), term(), any::<u64>(), position(), digest()).prop_map(
            |(segment, term, sequence, position, chain)| {
                Message::SegmentStart(crate::SegmentStart { segment, term, sequence, position, chain })
            }
        ),
        (any::<u64>(), position(), position()).prop_map(|(stamp, watermark, released)| {
            Message::Heartbeat(Heartbeat { stamp, watermark, released })
        }),
        (any::<u64>(), position(), any::<u64>(), any::<bool>()).prop_map(
            |(sequence, executed, echo, durable)| { Message::Ack(Ack { sequence, executed, echo, durable }) }
        ),
        (position(), ".{0,80}").prop_map(|(position, text)| Message::Diverged(Diverged { position, text })),
        ".{0,80}".prop_map(Message::Bye),
        ".{0,80}".prop_map(Message::Listens),
        Just(Message::Promote),
        (position(), digest())
            .prop_map(|(position, digest)| Message::HandOver(HandOver { position, digest })),
        ".{0,80}".prop_map(Message::Keep),
    ]
}

fn read(bytes: &[u8]) -> Result<Message<'_>, WireError> {
    let (len, kind) = prefix(*bytes.first_chunk().expect("a prefix"))?;
    assert_eq!(len, bytes.len() - PREFIX);
    decode(kind, &bytes[PREFIX..])
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(message in message(), before in vec(any::<u8>(), 0..20)) {
        let mut bytes = before.clone();
        encode(&message, &mut bytes).unwrap();
        prop_assert_eq!(&bytes[..before.len()], &before[..]);
        prop_assert_eq!(read(&bytes[before.len()..]).unwrap(), message);
    }

    #[test]
    fn changed_messages_are_refused_or_valid(message in message(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in any::<Option<prop::sample::Index>>()) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).unwrap();
        let len = bytes.len() - PREFIX;
        for (index, byte) in changes.iter().filter(|_| len > 0) {
            bytes[PREFIX + index.index(len)] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(PREFIX + cut.index(len + 1));
        }
        if let Ok(changed) = decode(message.kind(), &bytes[PREFIX..]) {
            let mut again = Vec::new();
            encode(&changed, &mut again).unwrap();
            prop_assert_eq!(read(&again).unwrap(), changed);
        }
    }

    #[test]
    fn random_bytes_are_refused_or_valid(kind in 0u8..40, body in vec(any::<u8>(), 0..300)) {
        let len = (body.len() as u32).to_le_bytes();
        match prefix([len[0], len[1], len[2], len[3], kind]) {
            Ok((_, kind)) => drop(decode(kind, &body)),
            Err(WireError::UnknownKind { kind: unknown }) => prop_assert!(unknown == kind && MessageKind::from_code(kind).is_none()),
            Err(WireError::TooLong { kind, len }) => prop_assert!(len == body.len() && len > kind.longest()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn what_is_too_long_is_refused_by_both_sides_and_texts_are_cut() {
    let mut out = vec![1];
    let body = vec![0; BODY_MAX + 1];
    assert!(matches!(encode(&Message::Batch(&body), &mut out), Err(WireError::TooLong { .. })));
    assert_eq!(out, [1]);
    out.clear();
    encode(&Message::Bye("ä".repeat(TEXT_MAX)), &mut out).unwrap();
    let Ok(Message::Bye(text)) = read(&out) else { panic!("a cut text is a text") };
    assert_eq!(text.len(), TEXT_MAX);
    let len = (BODY_MAX as u32 + 1).to_le_bytes();
    let error = prefix([len[0], len[1], len[2], len[3], MessageKind::Batch as u8]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("a Batch message of {} bytes; at most {BODY_MAX} are possible", BODY_MAX + 1)
    );
}

#[test]
fn an_acknowledgement_is_small() {
    let mut out = Vec::new();
    let ack = Ack { sequence: 1 << 20, executed: Position(1 << 30), echo: 1 << 45, durable: false };
    encode(&Message::Ack(ack), &mut out).unwrap();
    assert_eq!(out.len(), PREFIX + 16);
}
