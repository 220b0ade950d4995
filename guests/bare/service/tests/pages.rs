//! The pages over HTTP.

mod common;

use common::Talk;
use service::Flow;

/// Sends a request; returns the status line and the body.
fn ask(talk: &mut Talk, request: &str) -> (String, String) {
    let response = String::from_utf8(talk.say(request.as_bytes())).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").expect("a response has a head");
    let length = format!("Content-Length: {}", body.len());
    assert!(request.starts_with("HEAD") || head.lines().any(|line| line == length), "{head}");
    (head.lines().next().unwrap().into(), body.into())
}

#[test]
fn the_pages_are_there() {
    let mut talk = Talk::http();
    let (status, body) = ask(&mut talk, "GET / HTTP/1.1\r\nHost: kv\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.starts_with("<!doctype html>"));
    assert_eq!(ask(&mut talk, "GET /counter HTTP/1.1\r\n\r\n").1, "1\n");
    assert_eq!(ask(&mut talk, "HEAD /counter HTTP/1.1\r\n\r\n").1, "");
    assert_eq!(ask(&mut talk, "GET /counter?again HTTP/1.1\r\n\r\n").1, "2\n");
    talk.service.now = 3_500_000_000;
    let stats = "{\"connections\":0,\"commands\":0,\"requests\":5,\"keys\":0,\"uptime\":3}\n";
    assert_eq!(ask(&mut talk, "GET /stats HTTP/1.1\r\n\r\n").1, stats);
    assert_eq!(ask(&mut talk, "GET /nothing HTTP/1.1\r\n\r\n").0, "HTTP/1.1 404 Not Found");
    assert_eq!(ask(&mut talk, "DELETE / HTTP/1.1\r\n\r\n").0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(talk.flow, Flow::Continue);
}

#[test]
fn requests_may_be_pipelined_and_blank_lines_lie_between_them() {
    let answer = Talk::http().say(&b"GET /counter HTTP/1.1\r\n\r\n\r\n".repeat(3));
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200 OK").count(), 3);
}

#[test]
fn a_connection_ends_when_it_is_asked_to() {
    for request in ["GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let mut talk = Talk::http();
        let answer = String::from_utf8(talk.say(request.repeat(2).as_bytes())).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1);
        assert!(answer.contains("\r\nConnection: close\r\n"));
        assert_eq!(talk.flow, Flow::Close);
    }
}

#[test]
fn an_old_client_can_keep_its_connection() {
    let mut talk = Talk::http();
    let answer = talk.say(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(String::from_utf8(answer).unwrap().contains("\r\nConnection: keep-alive\r\n"));
    assert_eq!(talk.flow, Flow::Continue);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request"),
        (
            format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(9000)),
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65)),
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
    ] {
        let mut talk = Talk::http();
        assert_eq!(ask(&mut talk, &request).0, status);
        assert_eq!(talk.flow, Flow::Close);
    }
}
