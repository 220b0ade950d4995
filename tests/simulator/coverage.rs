//! Which transitions of the two protocols were taken: each reports its steps as a trace event.

use std::{
    collections::BTreeMap,
    fmt,
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// The transitions that there are: in which state which inputs come. A primary whose peer's link is gone is in a state of its own,
/// and so is a welcome that does not resume.
const TABLE: &[(&str, &str, &[&str])] = &[
    ("primary", "Solo", &["Joined", "HandOver", "End"]),
    (
        "primary",
        "Joining",
        &["Acknowledged", "Asked", "Ready", "Sent", "LinkLost", "HandOver", "End", "Tick"],
    ),
    (
        "primary",
        "Granting",
        &["Acknowledged", "Sent", "LinkLost", "Diverged", "HandOver", "Won", "End", "Tick"],
    ),
    (
        "primary",
        "Protected",
        &["Acknowledged", "Sent", "LinkLost", "Resumed", "Diverged", "HandOver", "End", "Tick"],
    ),
    ("primary", "Protected(false)", &["Sent", "Resumed", "HandOver", "End", "Tick"]),
    (
        "primary",
        "Handing",
        &["Acknowledged", "Sent", "LinkLost", "Diverged", "HandOver", "Quiet", "Won", "Lost", "End", "Tick"],
    ),
    ("primary", "Leaving", &["Acknowledged", "Sent", "LinkLost", "HandOver", "Won", "Lost", "End", "Tick"]),
    (
        "primary",
        "Ending",
        &["Acknowledged", "Asked", "Ready", "LinkLost", "Diverged", "HandOver", "Won", "Lost", "Tick"],
    ),
    ("secondary", "Dialling", &["Connected(false)", "Refused", "Unreachable"]),
    (
        "secondary",
        "Loading",
        &["Heard", "Held", "Announced", "Loaded", "LinkLost", "HandedOver", "Goodbye", "Tick"],
    ),
    (
        "secondary",
        "Following",
        &["Heard", "Held", "Granted", "LinkLost", "Diverged", "HandedOver", "Goodbye", "Tick"],
    ),
    ("secondary", "Receiving", &["Heard", "LinkLost", "Diverged", "Executed", "Tick"]),
    (
        "secondary",
        "Redialling",
        &["Connected", "Connected(false)", "Refused", "NoAnswer", "Unreachable", "Diverged", "WentBack"],
    ),
    ("secondary", "TakingOver", &["Heard", "LinkLost", "Won", "Lost", "Goodbye", "Tick"]),
];

/// Compares what was taken with the table: what it does not list, and what it lists and was not taken.
pub(crate) fn compare(coverage: &Coverage) -> (Vec<String>, Vec<String>) {
    let listed = |protocol: &str, state: &str, input: &str| {
        TABLE.iter().any(|row| (row.0, row.1) == (protocol, state) && row.2.contains(&input))
    };
    let taken = |protocol: &str, state: &str, input: &str| {
        coverage.keys().any(|key| (key.0, key.1.as_str(), key.2.as_str()) == (protocol, state, input))
    };
    let unknown = coverage.keys().filter(|key| !listed(key.0, &key.1, &key.2));
    let unknown = unknown.map(|(protocol, state, input)| format!("{protocol} {state} {input}")).collect();
    let all = TABLE.iter().flat_map(|row| row.2.iter().map(move |input| (row.0, row.1, *input)));
    let missing = all.filter(|(protocol, state, input)| !taken(protocol, state, input));
    (unknown, missing.map(|(protocol, state, input)| format!("{protocol} {state} {input}")).collect())
}

/// A transition: protocol, state, input.
pub(crate) type Transition = (&'static str, String, String);

/// How often each transition was taken.
pub(crate) type Coverage = BTreeMap<Transition, u64>;

/// Listens to the protocols, and keeps their last words if these are wanted.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    heard: Arc<Mutex<Coverage>>,
    lines: Option<Arc<Mutex<Vec<String>>>>,
}

impl Listener {
    /// A listener that also keeps what is said.
    pub(crate) fn keeping() -> Listener {
        Listener { lines: Some(Arc::default()), ..Listener::default() }
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.heard.lock().expect("one thread").clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.as_ref().map_or(Vec::new(), |lines| lines.lock().expect("one thread").clone())
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    state: String,
    input: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = match field.name() {
            "state" => &mut self.state,
            "input" => &mut self.input,
            _ => &mut self.rest,
        };
        // Writing into a string cannot fail.
        let _ = write!(text, "{value:?}");
    }
}

/// The name of a variant: whether a protected primary is linked to its peer is a state of its own.
fn name(text: &str) -> String {
    let name = text.split(['(', ' ']).next().unwrap_or_default();
    match (name, text.ends_with("false)")) {
        ("Protected" | "Connected", true) => format!("{name}(false)"),
        _ => name.to_owned(),
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("echovisor::") || self.lines.is_some()
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let protocol = event.metadata().target().strip_prefix("echovisor::");
        if let Some(lines) = &self.lines {
            let from = protocol.unwrap_or(event.metadata().target());
            let line = format!("{from}: {} {} {}", fields.state, fields.input, fields.rest);
            lines.lock().expect("one thread").push(line);
        }
        if let Some(protocol) = protocol {
            let transition = (protocol, name(&fields.state), name(&fields.input));
            *self.heard.lock().expect("one thread").entry(transition).or_default() += 1;
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
