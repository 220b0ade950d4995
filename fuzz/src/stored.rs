//! Packs of a page store (docs/formats/snapshot.md).

/// The beginning of a pack.
pub const PACK: [u8; 16] = *b"ECHOPACK\x01\0\0\0\0\0\0\0";

/// A record with its check.
#[must_use]
pub fn record(kind: u8, coding: u8, digest: &[u8; 32], body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, coding, 0, 0];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(digest);
    out.extend(&blake3::hash(&out).as_bytes()[..8]);
    out.extend(body);
    out
}

/// The record of an object, under its address. The top bit of `kind` has it compressed.
#[must_use]
pub fn object(kind: u8, content: &[u8]) -> Vec<u8> {
    let digest = match kind & 0x7f {
        1 => *blake3::hash(content).as_bytes(),
        2 => blake3::derive_key("echovisor page tree node 1", content),
        _ => blake3::derive_key("echovisor machine state 1", content),
    };
    match kind >> 7 {
        0 => record(kind, 0, &digest, content),
        _ => record(kind & 0x7f, 1, &digest, &zstd::bulk::compress(content, 1).expect("memory")),
    }
}

/// The records of a pack: kind, whether it is compressed, and body.
#[must_use]
pub fn records(pack: &[u8]) -> Vec<(u8, bool, &[u8])> {
    let (mut rest, mut records) = (&pack[PACK.len()..], Vec::new());
    while let Some((label, body)) = rest.split_first_chunk::<48>() {
        let len = u32::from_le_bytes([label[4], label[5], label[6], label[7]]) as usize;
        let (body, after) = body.split_at(len.min(body.len()));
        records.push((label[0], label[1] == 1, body));
        rest = after;
    }
    records
}
