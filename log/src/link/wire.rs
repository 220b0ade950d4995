//! Messages to bytes and back. `len u32 LE | kind u8 | body`, where `len` counts the body; docs/formats/link.md has the
//! table of kinds.

use echovisor_event::{Digest, NodeId, Position, Term, VmId};
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::{
    kind::{MessageKind, WireError},
    message::{Ack, Diverged, Fingerprint, Heartbeat, Hello, Message, Refuse, RefuseCode, Resume, Welcome},
};
use crate::{
    limits::{TEXT_MAX, VERSION},
    varint,
};

/// Bytes before a body.
pub(crate) const PREFIX: usize = 5;

/// What a hello and a welcome begin with in every version, followed by the version.
const MAGIC: [u8; 4] = *b"ECHO";

#[derive(Archive, Serialize, Deserialize)]
struct HelloBody {
    node: NodeId,
    fingerprint: Fingerprint,
    vm: Option<VmId>,
    term: Term,
    resume: Option<Resume>,
    suspicion_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct WelcomeBody {
    vm: VmId,
    node: NodeId,
    term: Term,
    fingerprint: Digest,
    resumed: bool,
}

/// Reads the length and kind of the message whose first bytes these are, and bounds them.
pub(crate) fn prefix(bytes: [u8; PREFIX]) -> Result<(usize, MessageKind), WireError> {
    let [a, b, c, d, kind] = bytes;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    let kind = MessageKind::from_code(kind).ok_or(WireError::UnknownKind { kind })?;
    if len > kind.longest() { Err(WireError::TooLong { kind, len }) } else { Ok((len, kind)) }
}

/// Bytes of the message that has this prefix, which [`encode`] has written: with the prefix, and not bounded.
pub(crate) fn message_len([a, b, c, d, _]: [u8; PREFIX]) -> usize {
    PREFIX + u32::from_le_bytes([a, b, c, d]) as usize
}

/// Appends a message, prefix included.
///
/// Texts that are too long are cut.
///
/// # Errors
///
/// [`WireError::TooLong`] if it is longer than its kind may be; `out` is as it was then.
pub(crate) fn encode(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    let kind = message.kind();
    out.extend_from_slice(&[0, 0, 0, 0, kind as u8]);
    match message {
        Message::Hello(Hello { version, node, fingerprint, vm, term, resume, suspicion_ms }) => {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&version.to_le_bytes());
            let Fingerprint { text, digest } = fingerprint;
            let fingerprint = Fingerprint { text: cut(text).to_owned(), digest: *digest };
            archive(
                out,
                &HelloBody {
                    node: *node,
                    fingerprint,
                    vm: *vm,
                    term: *term,
                    resume: *resume,
                    suspicion_ms: *suspicion_ms,
                },
            );
        }
        Message::Welcome(Welcome { version, vm, node, term, fingerprint, resumed }) => {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&version.to_le_bytes());
            let (vm, node, term, fingerprint, resumed) = (*vm, *node, *term, *fingerprint, *resumed);
            archive(out, &WelcomeBody { vm, node, term, fingerprint, resumed });
        }
        Message::Refuse(Refuse { code, text }) => {
            out.extend_from_slice(&(*code as u16).to_le_bytes());
            out.extend_from_slice(cut(text).as_bytes());
        }
        Message::SyncBegin(begin) => archive(out, begin),
        Message::SyncAsk(ask) => archive(out, ask),
        Message::SyncNodes(bytes) | Message::SyncPages(bytes) | Message::Batch(bytes) => {
            out.extend_from_slice(bytes);
        }
        Message::Ready(ready) => archive(out, ready),
        Message::Grant(position) => varint::put(out, position.0),
        Message::SegmentStart(start) => archive(out, start),
        Message::Heartbeat(Heartbeat { stamp, watermark, released }) => {
            put_all(out, [*stamp, watermark.0, released.0]);
        }
        Message::Ack(Ack { sequence, executed, echo, durable }) => {
            put_all(out, [*sequence, executed.0, *echo]);
            out.push(u8::from(*durable));
        }
        Message::Diverged(Diverged { position, text }) => {
            archive(out, &Diverged { position: *position, text: cut(text).to_owned() });
        }
        Message::Bye(text) | Message::Keep(text) => out.extend_from_slice(cut(text).as_bytes()),
        Message::Listens(address) => out.extend_from_slice(address.as_bytes()),
        Message::Promote => {}
        Message::HandOver(end) => archive(out, end),
    }
    let len = out.len() - start - PREFIX;
    if len > kind.longest() {
        out.truncate(start);
        return Err(WireError::TooLong { kind, len });
    }
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}

/// Reads a message's body, which is as long as its prefix said.
pub(crate) fn decode(kind: MessageKind, body: &[u8]) -> Result<Message<'_>, WireError> {
    let read = Body { kind, bytes: body };
    Ok(match kind {
        MessageKind::Hello => {
            let (version, rest) = read.version()?;
            let HelloBody { node, fingerprint, vm, term, resume, suspicion_ms } = rest.unarchive()?;
            Message::Hello(Hello { version, node, fingerprint, vm, term, resume, suspicion_ms })
        }
        MessageKind::Welcome => {
            let (version, rest) = read.version()?;
            let WelcomeBody { vm, node, term, fingerprint, resumed } = rest.unarchive()?;
            Message::Welcome(Welcome { version, vm, node, term, fingerprint, resumed })
        }
        MessageKind::Refuse => {
            let (code, text) = body.split_first_chunk().ok_or_else(|| read.malformed("code", "cut off"))?;
            let code = RefuseCode::from_code(u16::from_le_bytes(*code));
            Message::Refuse(Refuse { code, text: Body { kind, bytes: text }.text()? })
        }
        MessageKind::SyncBegin => Message::SyncBegin(read.unarchive()?),
        MessageKind::SyncAsk => Message::SyncAsk(read.unarchive()?),
        MessageKind::SyncNodes => Message::SyncNodes(body),
        MessageKind::SyncPages => Message::SyncPages(body),
        MessageKind::Ready => Message::Ready(read.unarchive()?),
        MessageKind::Grant => {
            let [position] = read.numbers(["position"], &[])?.0;
            Message::Grant(Position(position))
        }
        MessageKind::SegmentStart => Message::SegmentStart(read.unarchive()?),
        MessageKind::Batch => Message::Batch(body),
        MessageKind::Heartbeat => {
            let [stamp, watermark, released] = read.numbers(["stamp", "watermark", "released"], &[])?.0;
            Message::Heartbeat(Heartbeat {
                stamp,
                watermark: Position(watermark),
                released: Position(released),
            })
        }
        MessageKind::Ack => {
            let ([sequence, executed, echo], flag) =
                read.numbers(["sequence", "executed", "echo"], &[0, 1])?;
            Message::Ack(Ack { sequence, executed: Position(executed), echo, durable: flag == Some(1) })
        }
        MessageKind::Diverged => Message::Diverged(read.unarchive()?),
        MessageKind::Bye => Message::Bye(read.text()?),
        MessageKind::Listens => Message::Listens(read.text()?),
        MessageKind::Promote => Message::Promote,
        MessageKind::HandOver => Message::HandOver(read.unarchive()?),
        MessageKind::Keep => Message::Keep(read.text()?),
    })
}

/// A body that is being read.
#[derive(Clone, Copy)]
struct Body<'a> {
    kind: MessageKind,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn malformed(&self, field: &'static str, problem: impl Into<String>) -> WireError {
        WireError::Malformed { kind: self.kind, field, problem: problem.into() }
    }

    /// Checks magic and version, which stand before anything that may differ between versions.
    fn version(self) -> Result<(u16, Body<'a>), WireError> {
        let rest = self.bytes.strip_prefix(&MAGIC).ok_or(WireError::NotEchovisor)?;
        let (version, bytes) = rest.split_first_chunk().ok_or(WireError::NotEchovisor)?;
        let theirs = u16::from_le_bytes(*version);
        if theirs == VERSION {
            Ok((theirs, Body { bytes, ..self }))
        } else {
            Err(WireError::Version { theirs })
        }
    }

    /// Reads an archived value after checking all of it.
    fn unarchive<T>(self) -> Result<T, WireError>
    where
        T: Archive,
        T::Archived: for<'b> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'b, rancor::Error>>
            + Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
    {
        // The receiver's buffer has no alignment; the few control messages are copied to where they have it.
        let mut aligned: AlignedVec = AlignedVec::with_capacity(self.bytes.len());
        aligned.extend_from_slice(self.bytes);
        rkyv::from_bytes(&aligned)
            .map_err(|_: rancor::Error| self.malformed("body", "not laid out as such a message is"))
    }

    /// Reads numbers, and one last byte if `flags` says which are allowed.
    fn numbers<const N: usize>(
        self,
        names: [&'static str; N],
        flags: &[u8],
    ) -> Result<([u64; N], Option<u8>), WireError> {
        let mut rest = self.bytes;
        let mut values = [0; N];
        for (value, name) in values.iter_mut().zip(names) {
            *value = varint::take(&mut rest).ok_or_else(|| self.malformed(name, "not a number"))?;
        }
        match (rest, flags) {
            ([], []) => Ok((values, None)),
            ([flag], flags) if flags.contains(flag) => Ok((values, Some(*flag))),
            _ => Err(self.malformed("end", format!("{} unexpected bytes", rest.len()))),
        }
    }

    fn text(self) -> Result<String, WireError> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.malformed("text", error.to_string())),
        }
    }
}

fn put_all<const N: usize>(out: &mut Vec<u8>, values: [u64; N]) {
    values.into_iter().for_each(|value| varint::put(out, value));
}

fn archive(
    out: &mut Vec<u8>,
    value: &impl for<'a> Serialize<
        rkyv::api::high::HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Panic>,
    >,
) {
    out.extend_from_slice(
        &rkyv::to_bytes::<rancor::Panic>(value).expect("plain values serialize into memory"),
    );
}

/// As much of a text as may be sent.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

#[cfg(test)]
mod tests;
