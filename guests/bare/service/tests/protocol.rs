//! The parser against whatever comes, in whatever pieces.

mod common;

use common::{Talk, encode};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use service::Flow;
use service::limits::LINE_MAX;
use std::collections::BTreeMap;

/// Bytes of which many are significant to the protocol.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => vec(vec(any::<u8>(), 0..20), 0..4).prop_map(|arguments| {
            encode(&arguments.iter().map(Vec::as_slice).collect::<Vec<_>>())
        }),
        2 => prop::sample::select(vec![
            &b"PING\r\n"[..], b"SET a 'b c'\n", b"GET \"\\x61\"\r\n", b"*", b"$", b"\r\n", b"-1", b"*2\r\n", b"$3\r\nGET\r\n",
        ]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_get_the_same_answer_in_any_pieces(stream in stream(), cuts in vec(0..1000usize, 0..10)) {
        let whole = Talk::resp().say(&stream);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut talk = Talk::resp();
        let mut pieces = Vec::new();
        let mut start = 0;
        for end in cuts.into_iter().chain([stream.len()]) {
            pieces.extend(talk.say(&stream[start..end]));
            start = end;
        }
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn what_is_set_is_what_is_read(entries in btree_map(vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..200), 0..20)) {
        let mut talk = Talk::resp();
        let sets: Vec<_> = entries.iter().flat_map(|(key, value)| encode(&[b"SET", key, value])).collect();
        prop_assert_eq!(talk.say(&sets), b"+OK\r\n".repeat(entries.len()));
        for (key, value) in &entries {
            let reply = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
            prop_assert_eq!(talk.say(&encode(&[b"GET", key])), reply);
        }
        prop_assert_eq!(talk.service.store.len(), entries.len());
    }

    #[test]
    fn the_store_is_a_map(steps in vec((0..4u8, 0..8u8, vec(any::<u8>(), 0..100)), 0..60)) {
        let mut talk = Talk::resp();
        let mut model = BTreeMap::<u8, Vec<u8>>::new();
        for (step, key, value) in steps {
            match step {
                0 => {
                    talk.say(&encode(&[b"SET", &[key], &value]));
                    model.insert(key, value);
                }
                1 => {
                    talk.say(&encode(&[b"APPEND", &[key], &value]));
                    model.entry(key).or_default().extend(value);
                }
                2 => {
                    talk.say(&encode(&[b"DEL", &[key]]));
                    model.remove(&key);
                }
                _ => prop_assert_eq!(talk.service.store.get(&[key]), model.get(&key).map(Vec::as_slice)),
            }
        }
        prop_assert_eq!(talk.service.store.len(), model.len());
    }
}

#[test]
fn a_request_in_single_bytes_costs_no_more_than_in_one_piece() {
    // If each byte made the parser start again this would take hours.
    let request = encode(&[b"SET", b"a", &vec![b'x'; 1 << 20]]);
    let mut talk = Talk::resp();
    let replies: Vec<_> = request.chunks(1).flat_map(|byte| talk.say(byte)).collect();
    assert_eq!(replies, b"+OK\r\n");
}

#[test]
fn broken_requests_are_told_apart() {
    let long_line = vec![b'x'; LINE_MAX + 2];
    for (request, error) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"GET \"a\r\n", "unbalanced quotes in request"),
        (&long_line, "too big inline request"),
        (&[b"*", &long_line[..]].concat(), "too big mbulk count string"),
        (&[b"*1\r\n$", &long_line[..]].concat(), "too big bulk count string"),
    ] {
        let mut talk = Talk::resp();
        let reply = talk.say(request);
        assert_eq!(String::from_utf8_lossy(&reply), format!("-ERR Protocol error: {error}\r\n"));
        assert_eq!(talk.flow, Flow::Close);
    }
}

#[test]
fn requests_of_nothing_are_no_requests() {
    assert_eq!(Talk::resp().say(b"\r\n*0\r\n*-1\r\n   \r\nPING\r\n"), b"+PONG\r\n");
}

#[test]
fn a_request_has_a_limit_as_a_whole() {
    let value = vec![b'x'; 1 << 20];
    let reply = Talk::resp().say(&encode(&[b"MSET", b"a", &value, b"b", &value, b"c", &value, b"d", &value]));
    assert_eq!(reply, b"-ERR Protocol error: too big request\r\n");
}
