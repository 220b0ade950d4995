//! The pages.

use super::request::Request;
use super::response::{Response, Status};
use crate::Service;
use crate::buffers::Output;
use core::fmt::Write;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "<!doctype html>
<title>kv</title>
<h1>kv</h1>
<p>A key-value store: RESP on port 6379, and here <a href=\"/counter\">/counter</a> and <a href=\"/stats\">/stats</a>.
";

/// Answers a request.
pub(super) fn serve(request: &Request<'_>, service: &mut Service, output: &mut Output) {
    let head_only = request.method == "HEAD";
    let mut text = heapless::String::<256>::new();
    let (status, content_type, body) = if request.method != "GET" && !head_only {
        (Status::MethodNotAllowed, TEXT, "only GET and HEAD\n")
    } else {
        match request.path {
            "/" => (Status::Ok, HTML, INDEX),
            "/counter" => {
                // HEAD must not have an effect.
                service.stats.counter += u64::from(!head_only);
                writeln!(text, "{}", service.stats.counter).expect("a number has room");
                (Status::Ok, TEXT, text.as_str())
            }
            "/stats" => {
                write_stats(&mut text, service).expect("four numbers have room");
                (Status::Ok, JSON, text.as_str())
            }
            _ => (Status::NotFound, TEXT, "no such page\n"),
        }
    };
    let Request { is_old, keep_alive, .. } = *request;
    Response { status, content_type, body, head_only, is_old, keep_alive }.write(output);
}

/// Answers what is no request, as the last thing on its connection.
pub(super) fn refuse(status: Status, output: &mut Output) {
    let body = status.line();
    Response { status, content_type: TEXT, body, head_only: false, is_old: false, keep_alive: false }
        .write(output);
}

fn write_stats(text: &mut impl Write, service: &Service) -> core::fmt::Result {
    let Service { store, stats, .. } = service;
    write!(text, "{{\"connections\":{},\"commands\":{},", stats.open, stats.commands)?;
    write!(text, "\"requests\":{},\"keys\":{},", stats.requests, store.len())?;
    writeln!(text, "\"uptime\":{}}}", service.uptime())
}
