//! A conversation with the service, without a network.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use service::buffers::{Input, Output};
use service::limits::VALUE_MAX;
use service::{Flow, Heap, Service, Session, Store, http, resp};

/// A client of a service of its own.
pub struct Talk {
    pub service: Service,
    session: Session,
    input: Input,
    output: Output,
    pub flow: Flow,
}

impl Talk {
    pub fn resp() -> Self {
        Self::new(Session::Resp(resp::Session::new(1)), || 0)
    }

    pub fn http() -> Self {
        Self::new(Session::Http(http::Session::default()), || 0)
    }

    /// A client of a store that has no room left.
    pub fn resp_when_full() -> Self {
        Self::new(Session::Resp(resp::Session::new(1)), || usize::MAX)
    }

    fn new(session: Session, used: fn() -> usize) -> Self {
        let service = Service::new(Store::new([1, 2], Heap { used, limit: VALUE_MAX }));
        Self { service, session, input: Input::default(), output: Output::default(), flow: Flow::Continue }
    }

    /// Sends bytes and takes what comes back, as far as the conversation goes.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.push(bytes).unwrap();
        let mut answer = Vec::new();
        while self.flow == Flow::Continue {
            self.flow = self.session.advance(&mut self.input, &mut self.output, &mut self.service);
            assert!(!self.output.is_lost());
            let sent = self.output.unsent().len();
            answer.extend_from_slice(self.output.unsent());
            self.output.sent(sent);
            if sent == 0 {
                break;
            }
        }
        answer
    }

    /// Sends a command and takes its reply as text.
    pub fn command(&mut self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').map(str::as_bytes).collect();
        String::from_utf8(self.say(&encode(&words))).unwrap()
    }
}

/// A request as client libraries send it.
pub fn encode(arguments: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        request.extend_from_slice(argument);
        request.extend_from_slice(b"\r\n");
    }
    request
}
