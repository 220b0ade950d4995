//! The model against a server that keeps its word, and against servers that break it in one way each.

use std::collections::BTreeMap;

use super::*;

/// A key-value server in memory.
#[derive(Clone, Default)]
struct Server {
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Server {
    /// Answers whole requests, each in a buffer of its own.
    fn answer(&mut self, mut requests: &[u8]) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        while !requests.is_empty() {
            let words = read_request(&mut requests);
            replies.push(match words[0] {
                b"SET" => {
                    self.keys.insert(words[1].to_vec(), words[2].to_vec());
                    b"+OK\r\n".to_vec()
                }
                b"GET" => match self.keys.get(words[1]) {
                    Some(held) => [format!("${}\r\n", held.len()).as_bytes(), held, b"\r\n"].concat(),
                    None => b"$-1\r\n".to_vec(),
                },
                b"INCR" => {
                    let held = self.keys.entry(words[1].to_vec()).or_insert(b"0".to_vec());
                    let count = resp::number(held).expect("a counter") + 1;
                    *held = count.to_string().into_bytes();
                    format!(":{count}\r\n").into_bytes()
                }
                other => panic!("no such command: {}", other.escape_ascii()),
            });
        }
        replies
    }
}

fn read_request<'a>(bytes: &mut &'a [u8]) -> Vec<&'a [u8]> {
    let line = |bytes: &mut &'a [u8], mark: u8| {
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("a whole request");
        let (line, rest) = bytes.split_at(end + 1);
        assert_eq!(line[0], mark);
        *bytes = rest;
        resp::number(&line[1..end - 1]).expect("a length") as usize
    };
    (0..line(bytes, b'*'))
        .map(|_| {
            let length = line(bytes, b'$');
            let (word, rest) = bytes.split_at(length);
            *bytes = rest.strip_prefix(b"\r\n").expect("an end of line");
            word
        })
        .collect()
}

const LOAD: Load = Load { seed: 7, connections: 4, depth: 8, keys: 16 };

/// Lets every connection send and receive once.
fn round(model: &mut Model, server: &mut Server) {
    tampered_round(model, server, |_, _| {});
}

/// The same, with someone between the server and the model.
fn tampered_round(model: &mut Model, server: &mut Server, mut tamper: impl FnMut(usize, &mut Vec<Vec<u8>>)) {
    for connection in 0..LOAD.connections {
        let mut out = Vec::new();
        model.requests(connection, &mut out);
        let mut replies = server.answer(&out);
        tamper(connection, &mut replies);
        model.replies(connection, &replies.concat());
    }
}

fn finish(model: &mut Model, server: &mut Server) -> Tally {
    model.read_back();
    for _ in 0..100 {
        round(model, server);
    }
    assert!(model.is_done());
    model.tally()
}

fn kinds(model: &Model) -> Vec<FaultKind> {
    model.faults().iter().map(|fault| fault.kind).collect()
}

#[test]
fn a_server_that_keeps_its_word_is_believed() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..500 {
        round(&mut model, &mut server);
    }
    assert!(!model.is_done());
    let tally = finish(&mut model, &mut server);
    assert_eq!(model.faults(), []);
    assert_eq!((tally.acknowledged_lost, tally.faults), (0, 0));
    assert_eq!(tally.sent, tally.replies);
    assert!(tally.replies > 500 * 18 && tally.writes_acknowledged > tally.replies / 3, "{tally:?}");
}

#[test]
fn replies_may_come_in_pieces_and_late() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    let mut pending: Vec<VecDeque<u8>> = vec![VecDeque::new(); LOAD.connections];
    let mut random = Rng::with_seed(1);
    for step in 0..20_000 {
        if step == 10_000 {
            model.read_back();
        }
        let connection = random.usize(..LOAD.connections);
        let mut out = Vec::new();
        model.requests(connection, &mut out);
        pending[connection].extend(server.answer(&out).concat());
        let piece = random.usize(..60).min(pending[connection].len());
        model.replies(connection, &pending[connection].drain(..piece).collect::<Vec<u8>>());
    }
    assert!(model.is_done());
    assert_eq!(model.faults(), []);
}

#[test]
fn the_same_seed_gives_the_same_requests() {
    let requests = |load| {
        let (mut model, mut out) = (Model::new(load), Vec::new());
        model.requests(1, &mut out);
        out
    };
    assert_eq!(requests(LOAD), requests(LOAD));
    assert_ne!(requests(LOAD), requests(Load { seed: 8, ..LOAD }));
}

#[test]
fn a_takeover_that_forgets_the_last_writes_is_detected() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..100 {
        round(&mut model, &mut server);
    }
    let (mut late, acknowledged) = (server.clone(), model.tally().writes_acknowledged);
    round(&mut model, &mut server);
    let forgotten = model.tally().writes_acknowledged - acknowledged;
    assert!(forgotten > 0);
    // The load ends right here: only reading back can tell, and it tells every single write.
    let tally = finish(&mut model, &mut late);
    assert_eq!(tally.acknowledged_lost, forgotten);
    assert!(kinds(&model).iter().all(|kind| *kind == FaultKind::Lost), "{:?}", model.faults());
}

#[test]
fn writes_forgotten_in_the_middle_of_the_load_are_not_counted_twice() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..100 {
        round(&mut model, &mut server);
    }
    let mut late = server.clone();
    let acknowledged = model.tally().writes_acknowledged;
    round(&mut model, &mut server);
    let forgotten = model.tally().writes_acknowledged - acknowledged;
    for _ in 0..100 {
        round(&mut model, &mut late);
    }
    let tally = finish(&mut model, &mut late);
    assert!(
        tally.acknowledged_lost > 0 && tally.acknowledged_lost <= forgotten,
        "{tally:?}, {forgotten} forgotten"
    );
}

#[test]
fn one_lost_write_of_each_kind_is_found_by_reading_back() {
    for kind in [KeyKind::Register, KeyKind::Counter, KeyKind::Shared] {
        let (mut model, mut server) = (Model::new(LOAD), Server::default());
        for _ in 0..200 {
            round(&mut model, &mut server);
        }
        let key = model.keys.iter().find(|key| key.kind == kind && key.sent > 1).expect("a written key");
        let earlier = key.sent - 1;
        let held = match kind {
            KeyKind::Register => value(LOAD.seed, &key.name, earlier),
            KeyKind::Counter | KeyKind::Shared => earlier.to_string(),
        };
        server.keys.insert(key.name.clone().into_bytes(), held.into_bytes());
        assert_eq!(finish(&mut model, &mut server).acknowledged_lost, 1, "{kind:?}");
        assert_eq!(kinds(&model), [FaultKind::Lost], "{kind:?}");
    }
}

#[test]
fn a_key_that_is_gone_has_lost_every_write() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..200 {
        round(&mut model, &mut server);
    }
    let key = model.keys.iter().find(|key| key.sent > 1).expect("a written key").clone();
    server.keys.remove(key.name.as_bytes());
    assert_eq!(finish(&mut model, &mut server).acknowledged_lost, key.sent);
}

#[test]
fn a_wrong_value_is_not_taken_for_an_old_one() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..200 {
        round(&mut model, &mut server);
    }
    let key =
        model.keys.iter().find(|key| key.kind == KeyKind::Register && key.sent > 1).expect("a written key");
    let mut held = value(LOAD.seed, &key.name, key.sent).into_bytes();
    *held.last_mut().expect("not empty") ^= 1;
    server.keys.insert(key.name.clone().into_bytes(), held);
    assert_eq!(finish(&mut model, &mut server).acknowledged_lost, 0);
    assert_eq!(kinds(&model), [FaultKind::Wrong]);
}

#[test]
fn a_write_done_twice_is_detected() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..200 {
        round(&mut model, &mut server);
    }
    let name = model.keys.last().expect("a shared counter").name.clone();
    let mut again = Vec::new();
    write_request(&[b"INCR", name.as_bytes()], &mut again);
    server.answer(&again);
    finish(&mut model, &mut server);
    assert_eq!(kinds(&model), [FaultKind::Wrong]);
}

#[test]
fn a_shared_counter_that_steps_back_is_noticed_at_once() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..100 {
        round(&mut model, &mut server);
    }
    for key in model.keys.iter().filter(|key| key.kind == KeyKind::Shared) {
        server.keys.insert(key.name.clone().into_bytes(), (key.sent - 1).to_string().into_bytes());
    }
    while model.faults().is_empty() {
        round(&mut model, &mut server);
    }
    assert!(kinds(&model).contains(&FaultKind::Lost), "{:?}", model.faults());
}

#[test]
fn a_reply_that_comes_twice_is_detected() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    tampered_round(&mut model, &mut server, |connection, replies| {
        if connection == 0 {
            let reply = replies[0].clone();
            replies.push(reply);
        }
    });
    assert_eq!(kinds(&model), [FaultKind::Unasked]);
}

#[test]
fn replies_in_another_order_are_detected() {
    for (first, second) in [(0, 1), (0, 7), (3, 4)] {
        let mut swapped = 0;
        for seed in 0..20 {
            let (mut model, mut server) = (Model::new(Load { seed, ..LOAD }), Server::default());
            round(&mut model, &mut server);
            let mut differed = false;
            tampered_round(&mut model, &mut server, |connection, replies| {
                if connection == 1 {
                    differed = replies[first] != replies[second];
                    replies.swap(first, second);
                }
            });
            // Two replies that are the same byte by byte, such as +OK twice, have no order.
            assert_eq!(differed, !model.faults().is_empty(), "seed {seed}: {:?}", model.faults());
            swapped += u32::from(differed);
        }
        assert!(swapped > 5);
    }
}

#[test]
fn a_reply_that_is_missing_keeps_the_model_waiting() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    tampered_round(&mut model, &mut server, |connection, replies| {
        if connection == 1 {
            replies.pop();
        }
    });
    model.read_back();
    for _ in 0..100 {
        round(&mut model, &mut server);
    }
    assert!(!model.is_done() || !model.faults().is_empty());
}

#[test]
fn what_is_not_the_protocol_ends_the_connection() {
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    round(&mut model, &mut server);
    model.replies(0, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(kinds(&model), [FaultKind::Garbled]);
    assert_eq!(model.replies_by_connection(), [None, Some(8), Some(1), Some(8)]);
    let mut out = Vec::new();
    model.requests(0, &mut out);
    assert!(out.is_empty());
}

#[test]
fn an_abandoned_connection_may_have_done_what_was_under_way_but_no_less_than_was_acknowledged() {
    for done in [false, true] {
        let (mut model, mut server) = (Model::new(LOAD), Server::default());
        for _ in 0..100 {
            round(&mut model, &mut server);
        }
        let mut out = Vec::new();
        model.requests(1, &mut out);
        if done {
            server.answer(&out);
        }
        model.abandon(1);
        finish(&mut model, &mut server);
        assert_eq!(model.faults(), [], "done: {done}");
    }
    let (mut model, mut server) = (Model::new(LOAD), Server::default());
    for _ in 0..100 {
        round(&mut model, &mut server);
    }
    model.abandon(1);
    let key = &model.keys[LOAD.keys];
    assert!(key.sent > 0, "the first key of connection 1 was written to");
    server.keys.remove(key.name.as_bytes());
    let lost = key.sent;
    assert_eq!(finish(&mut model, &mut server).acknowledged_lost, lost);
}

#[test]
fn without_connections_there_is_nothing_to_wait_for() {
    let mut model = Model::new(LOAD);
    (0..LOAD.connections).for_each(|connection| model.abandon(connection));
    assert!(model.is_done());
    assert!(Model::new(Load { connections: 0, ..LOAD }).is_done());
}
