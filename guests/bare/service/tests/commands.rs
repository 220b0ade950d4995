//! Commands and their replies, as redis gives them.

mod common;

use common::{Talk, encode};
use service::Flow;
use service::limits::VALUE_MAX;

/// Plays a dialogue: each command with the reply that it must get.
fn dialogue(lines: &[(&str, &str)]) {
    let mut talk = Talk::resp();
    for (command, reply) in lines {
        assert_eq!(talk.command(command), *reply, "{command}");
    }
}

const NOT_AN_INTEGER: &str = "-ERR value is not an integer or out of range\r\n";
const OUT_OF_MEMORY: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const SYNTAX: &str = "-ERR syntax error\r\n";
const NIL: &str = "$-1\r\n";
const OK: &str = "+OK\r\n";

#[test]
fn values_are_set_and_read() {
    dialogue(&[
        ("GET a", NIL),
        ("set a 1", OK),
        ("GET a", "$1\r\n1\r\n"),
        ("STRLEN a", ":1\r\n"),
        ("STRLEN b", ":0\r\n"),
        ("GETSET a 22", "$1\r\n1\r\n"),
        ("GETSET b 3", NIL),
        ("MGET a x b", "*3\r\n$2\r\n22\r\n$-1\r\n$1\r\n3\r\n"),
        ("MSET a 1 c 2", OK),
        ("MSET a 1 c", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("APPEND a 23", ":3\r\n"),
        ("APPEND d 4", ":1\r\n"),
        ("MGET a d", "*2\r\n$3\r\n123\r\n$1\r\n4\r\n"),
        ("DBSIZE", ":4\r\n"),
        ("EXISTS a a x", ":2\r\n"),
        ("DEL a x b", ":2\r\n"),
        ("DBSIZE", ":2\r\n"),
        ("FLUSHALL", OK),
        ("DBSIZE", ":0\r\n"),
        ("FLUSHDB async", OK),
        ("FLUSHDB now", SYNTAX),
    ]);
}

#[test]
fn set_has_conditions() {
    dialogue(&[
        ("SET a 1 XX", NIL),
        ("SET a 1 NX", OK),
        ("SET a 2 nx", NIL),
        ("SET a 3 xx GET", "$1\r\n1\r\n"),
        ("SET a 4 NX GET", "$1\r\n3\r\n"),
        ("SET b 1 GET", NIL),
        ("MGET a b", "*2\r\n$1\r\n3\r\n$1\r\n1\r\n"),
        ("SETNX a 5", ":0\r\n"),
        ("SETNX c 5", ":1\r\n"),
        ("SET a 1 NX XX", SYNTAX),
        ("SET a 1 EX 5", SYNTAX),
    ]);
}

#[test]
fn integers_are_counted_up_and_down() {
    dialogue(&[
        ("INCR n", ":1\r\n"),
        ("INCRBY n 9", ":10\r\n"),
        ("DECR n", ":9\r\n"),
        ("DECRBY n -1", ":10\r\n"),
        ("GET n", "$2\r\n10\r\n"),
        ("INCRBY n x", NOT_AN_INTEGER),
        ("SET n 9223372036854775807", OK),
        ("INCR n", "-ERR increment or decrement would overflow\r\n"),
        ("DECRBY n -9223372036854775808", "-ERR increment or decrement would overflow\r\n"),
        ("SET n 01", OK),
        ("INCR n", NOT_AN_INTEGER),
    ]);
}

#[test]
fn the_connection_and_the_server_are_asked() {
    dialogue(&[
        ("PING", "+PONG\r\n"),
        ("PING hello", "$5\r\nhello\r\n"),
        ("ECHO hello", "$5\r\nhello\r\n"),
        ("SELECT 0", OK),
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        ("CLIENT ID", ":1\r\n"),
        ("CLIENT GETNAME", NIL),
        ("CLIENT SETNAME me", OK),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ("CLIENT SETINFO LIB-NAME lib", OK),
        ("COMMAND DOCS", "*0\r\n"),
        ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG GET appendonly nothing", "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
        ("HELLO 3", "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
    ]);
}

#[test]
fn info_tells_what_was_asked_for() {
    let mut talk = Talk::resp();
    talk.command("SET a 1");
    assert_eq!(talk.command("INFO keyspace"), "$44\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\r\n");
    let all = talk.command("INFO");
    for section in ["Server", "Clients", "Memory", "Stats", "Replication", "Keyspace"] {
        assert!(all.contains(&format!("# {section}\r\n")), "{section}");
    }
}

#[test]
fn an_error_stays_on_its_line() {
    let mut talk = Talk::resp();
    let reply = talk.say(&encode(&[b"no\r\n+OK", b"\r\n"]));
    assert_eq!(reply.iter().filter(|&&byte| byte == b'\n').count(), 1);
    assert!(reply.ends_with(b"\r\n"));
}

#[test]
fn quit_ends_the_conversation() {
    let mut talk = Talk::resp();
    assert_eq!(talk.say(b"QUIT\r\nPING\r\n"), b"+OK\r\n");
    assert_eq!(talk.flow, Flow::Close);
}

#[test]
fn a_full_store_is_still_read_and_emptied() {
    let mut talk = Talk::resp_when_full();
    for command in ["SET a 1", "MSET a 1", "INCR a", "APPEND a 1", "SETNX a 1", "GETSET a 1"] {
        assert_eq!(talk.command(command), OUT_OF_MEMORY, "{command}");
    }
    assert_eq!(talk.command("GET a"), NIL);
    assert_eq!(talk.command("DEL a"), ":0\r\n");
}

#[test]
fn values_have_a_limit() {
    let mut talk = Talk::resp();
    let longest = vec![b'x'; VALUE_MAX];
    assert_eq!(talk.say(&encode(&[b"SET", b"a", &longest])), OK.as_bytes());
    assert!(talk.command("APPEND a x").starts_with("-ERR string exceeds maximum allowed size"));
    let too_long = vec![b'x'; VALUE_MAX + 1];
    let reply = talk.say(&encode(&[b"SET", b"a", &too_long]));
    assert_eq!(reply, b"-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(talk.flow, Flow::Close);
}

#[test]
fn replies_that_do_not_fit_are_refused_one_by_one() {
    let mut talk = Talk::resp();
    talk.say(&encode(&[b"SET", b"a", &vec![b'x'; VALUE_MAX]]));
    let reply = talk.command("MGET a a a a a a a a a a");
    assert_eq!(reply.matches("$1048576\r\n").count(), 7);
    assert_eq!(reply.matches(OUT_OF_MEMORY).count(), 3);
}
