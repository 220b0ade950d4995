//! The nodes of a scenario: `echovisor` as a process with a control socket.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

pub use echovisor_tools::control::{Part, Role, Status};
use echovisor_tools::{
    control::{Request, Response},
    key_file::public_path,
};

use crate::{Lab, Namespace, Process, Scene, Site, echovisor, wait_for};

/// The port of the link.
const LINK_PORT: u16 = 7000;

/// What runs in the machine.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its name.
    pub name: &'static str,
    /// What it is told.
    pub arguments: &'static str,
}

/// The key-value server, at [`GUEST`](crate::GUEST).
pub const KV: Guest = Guest { name: "kv", arguments: "ip=10.0.0.2/24" };

/// A running `echovisor`.
#[derive(Debug)]
pub struct Node {
    /// Its process.
    pub process: Process,
    control: PathBuf,
}

/// What nodes make their log of, as arguments: what ECHOVISOR_POLICY says.
fn policy() -> Vec<String> {
    let name = env::var("ECHOVISOR_POLICY").ok().filter(|name| !name.is_empty());
    name.map_or_else(Vec::new, |name| vec!["--policy".to_owned(), name])
}

impl Lab<'_> {
    /// A primary at `site` that waits for a secondary before its guest starts.
    #[must_use]
    pub fn primary(&self, site: &Site, guest: Guest) -> Node {
        self.primary_with(site, guest, &[])
    }

    /// The same, with more arguments.
    #[must_use]
    pub fn primary_with(&self, site: &Site, guest: Guest, more: &[&str]) -> Node {
        let protection = ["--wait-for-secondary", "--listen", &link_address(site)].map(String::from);
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        self.node(site, "primary", &[&guest.words(), &protection, &more])
    }

    /// A primary at `site` that nobody protects, and that logs nothing.
    #[must_use]
    pub fn unprotected(&self, site: &Site, guest: Guest) -> Node {
        self.unprotected_with(site, guest, &[])
    }

    /// The same, with more arguments.
    #[must_use]
    pub fn unprotected_with(&self, site: &Site, guest: Guest, more: &[&str]) -> Node {
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        self.node(site, "primary", &[&guest.words(), &more])
    }

    /// A secondary at `site` that joins the primary at `other`.
    #[must_use]
    pub fn secondary(&self, site: &Site, other: &Site) -> Node {
        self.secondary_with(site, other, &[])
    }

    /// The same, with more arguments.
    #[must_use]
    pub fn secondary_with(&self, site: &Site, other: &Site, more: &[&str]) -> Node {
        let addresses = ["--join", &link_address(other), "--listen", &link_address(site)].map(String::from);
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        self.node(site, "secondary", &[&addresses, &more])
    }

    /// A primary and its secondary, the guest protected.
    #[must_use]
    pub fn pair(&self, guest: Guest) -> (Node, Node) {
        self.pair_with(guest, &[])
    }

    /// The same, with more arguments for both nodes.
    #[must_use]
    pub fn pair_with(&self, guest: Guest, more: &[&str]) -> (Node, Node) {
        let primary = self.primary_with(&self.primary, guest, more);
        let secondary = self.secondary_with(&self.secondary, &self.primary, more);
        primary.wait_until("protected", |status| status.protected);
        (primary, secondary)
    }

    /// A recording of a guest in the making, at `site`, and its folder.
    #[must_use]
    pub fn record(&self, site: &Site, guest: Guest) -> (Node, PathBuf) {
        self.record_with(site, guest, &[])
    }

    /// The same, with more arguments.
    #[must_use]
    pub fn record_with(&self, site: &Site, guest: Guest, more: &[&str]) -> (Node, PathBuf) {
        let folder = self.scene.path(&self.scene.unique("recording"));
        let out = ["--net", "tap:tap0", "--out", &folder.to_string_lossy()].map(String::from);
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let arguments = [&guest.words()[..], &out, &more].concat();
        (Node::start(self.scene, &site.namespace, "record", &arguments), folder)
    }

    /// The same over a Unix socket, which both hosts see here, encrypted or in plain text.
    #[must_use]
    pub fn pair_over_unix(&self, guest: Guest, encrypted: bool) -> (Node, Node) {
        let address = format!("unix:{}", self.scene.path(&self.scene.unique("link")).display());
        let start = |site: &Site, command, arguments: &[String]| {
            let keys = if encrypted { self.keys(site).to_vec() } else { Vec::new() };
            self.node_with(site, command, &[arguments, &keys].concat())
        };
        let listen = ["--wait-for-secondary", "--listen", &address].map(String::from);
        let primary = start(&self.primary, "primary", &[&guest.words()[..], &listen].concat());
        primary.wait_until("listening", |status| !status.protected);
        let secondary = start(&self.secondary, "secondary", &["--join", &address].map(String::from));
        primary.wait_until("protected", |status| status.protected);
        (primary, secondary)
    }

    /// A node at `site`, with the network, the arbiter and the keys of that host.
    #[must_use]
    pub fn node(&self, site: &Site, command: &str, arguments: &[&[String]]) -> Node {
        self.node_with(site, command, &[&arguments.concat()[..], &self.keys(site)].concat())
    }

    fn node_with(&self, site: &Site, command: &str, arguments: &[String]) -> Node {
        let arbiter = format!("file:{}", self.arbiter().display());
        let outside = ["--net", "tap:tap0", "--arbiter", &arbiter].map(String::from);
        Node::start(self.scene, &site.namespace, command, &[arguments, &outside, &policy()].concat())
    }

    /// The keys of a node at `site`, as arguments: its own, and the public one of the other host.
    #[must_use]
    pub fn keys(&self, site: &Site) -> [String; 4] {
        let [own, other] = if site.key == self.primary.key {
            [&self.primary, &self.secondary]
        } else {
            [&self.secondary, &self.primary]
        };
        let (key, peer) = (own.key.display(), public_path(&other.key));
        ["--key".to_owned(), key.to_string(), "--peer".to_owned(), peer.display().to_string()]
    }
}

impl Node {
    /// Starts `echovisor` with a command and its arguments, and a control socket besides.
    #[must_use]
    pub fn start(scene: &Scene, namespace: &Namespace, command: &str, arguments: &[String]) -> Node {
        let control = scene.path(&scene.unique("control"));
        let mut program = Command::new(echovisor());
        program.args(["-v", command]).args(arguments).arg("--control").arg(&control);
        let process = Process::start(scene, command, namespace, &mut program);
        Node { process, control }
    }

    /// Its control socket.
    #[must_use]
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// What `echovisor status` says about it.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Status, String> {
        let output =
            Command::new(echovisor()).args(["status", "--json", "--control"]).arg(&self.control).output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Makes a bit of a secondary's machine go bad behind its next checkpoint: see [`Request::Spoil`].
    ///
    /// # Panics
    /// If the node does not do it.
    pub fn spoil(&self, part: Part, at: u64, bit: u8) {
        let mut answer = String::new();
        UnixStream::connect(&self.control)
            .and_then(|mut socket| {
                serde_json::to_writer(&mut socket, &Request::Spoil { part, at, bit })?;
                socket.write_all(b"\n")?;
                BufReader::new(socket).read_line(&mut answer)
            })
            .expect("the node can be asked");
        let answer = serde_json::from_str(&answer);
        assert!(matches!(answer, Ok(Response::Ok(_))), "{} is not spoilt: {answer:?}", self.process.name());
    }

    /// Waits for a status, and gives it.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait_until(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        wait_for(&format!("{} to be {what}", self.process.name()), || {
            let status = self.status()?;
            if good(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
    }

    /// Ends it by `echovisor stop`.
    ///
    /// # Panics
    /// If it refuses, or fails.
    pub fn stop(self) {
        let stop = Command::new(echovisor()).args(["stop", "--control"]).arg(&self.control).output();
        let stop = stop.expect("echovisor can be started");
        let said = String::from_utf8_lossy(&stop.stderr);
        assert!(stop.status.success(), "{} could not be stopped: {said}", self.process.name());
        let _ = self.process.finish().output();
    }
}

fn link_address(site: &Site) -> String {
    format!("{}:{LINK_PORT}", site.address)
}

impl Guest {
    /// As arguments of `echovisor`.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        ["--guest", self.name, "--guest-args", self.arguments].map(String::from).to_vec()
    }
}
