//! The record, and its text: JSON, for people to read and, in need, to change by hand.

use echovisor_event::{NodeId, Term, VmId};
use serde::{Deserialize, Serialize};

/// Who may run a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The virtual machine.
    pub vm: VmId,
    /// How many takeovers there have been.
    pub term: Term,
    /// Who runs it.
    pub holder: NodeId,
    /// How it is protected.
    pub mode: Mode,
}

/// How a virtual machine is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: the holder requires nobody's acknowledgement, and nobody may take over.
    Solo,
    /// By this peer: it may take over, and the holder releases nothing that it has not acknowledged.
    Protected(NodeId),
    /// It was shut down on purpose: nobody runs it.
    Ended,
}

/// Longest text, bytes: a record needs less than 300.
pub(crate) const TEXT_MAX: u64 = 4096;

/// The record as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    vm: String,
    term: u64,
    holder: String,
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
}

impl Record {
    /// The record as text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (mode, peer) = match self.mode {
            Mode::Solo => ("solo", None),
            Mode::Protected(peer) => ("protected", Some(peer.to_string())),
            Mode::Ended => ("ended", None),
        };
        let (vm, holder) = (self.vm.to_string(), self.holder.to_string());
        let text = Text { vm, term: self.term.0, holder, mode: mode.to_owned(), peer };
        let mut json = serde_json::to_string_pretty(&text).expect("strings and numbers become JSON");
        json.push('\n');
        json
    }

    /// Reads a record's text; the error names what is wrong with it.
    ///
    /// # Errors
    ///
    /// What is wrong, for people.
    pub fn from_json(json: &[u8]) -> Result<Record, String> {
        let text: Text = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let node =
            |field: &str, id: &str| id.parse::<NodeId>().map_err(|error| format!("`{field}`: {error}"));
        let mode = match (text.mode.as_str(), &text.peer) {
            ("solo", None) => Mode::Solo,
            ("ended", None) => Mode::Ended,
            ("protected", Some(peer)) => Mode::Protected(node("peer", peer)?),
            ("protected", None) => return Err("`peer` is missing, though `mode` is protected".to_owned()),
            ("solo" | "ended", Some(_)) => {
                return Err("`peer` is there, though `mode` is not protected".to_owned());
            }
            _ => return Err("`mode` is none of solo, protected, ended".to_owned()),
        };
        let vm = text.vm.parse().map_err(|error| format!("`vm`: {error}"))?;
        let holder = node("holder", &text.holder)?;
        if text.term == u64::MAX {
            return Err("`term` leaves no room for another takeover".to_owned());
        }
        if mode == Mode::Protected(holder) {
            return Err("`peer` and `holder` are the same node".to_owned());
        }
        Ok(Record { vm, term: Term(text.term), holder, mode })
    }
}
