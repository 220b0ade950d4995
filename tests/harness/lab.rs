//! The network of a scenario, with all that a test does to it.

use std::{
    env,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use echovisor_tools::lab::{self, LINK, Network, TAP};
pub use echovisor_tools::lab::{CLIENT, GUEST};
use serde_json::Value;

use crate::{LIMIT, Namespace, Node, Role, Scene, Status, echovisor, namespace::must, wait_for};

/// The state of an open TCP connection in /proc/net/tcp.
const ESTABLISHED: &str = "01";

/// Two hosts and a client.
#[derive(Debug)]
pub struct Lab<'a> {
    /// Logs and files.
    pub scene: &'a Scene,
    /// Where clients live.
    pub client: Namespace,
    /// The host of the first primary.
    pub primary: Site,
    /// The host of the first secondary.
    pub secondary: Site,
    /// The folder in which the arbiter has its file.
    arbiter: PathBuf,
    /// The switch. It is here to live as long as the others.
    _switch: Namespace,
}

/// A host for nodes: a TAP called `tap0` for the guest, and one end of the link.
#[derive(Debug)]
pub struct Site {
    /// Its network.
    pub namespace: Namespace,
    /// Its address on the link.
    pub address: &'static str,
    /// The file of its private key; the public one is beside it.
    pub key: PathBuf,
}

impl<'a> Lab<'a> {
    /// Lays all cables.
    ///
    /// # Panics
    /// If this host has no TAP devices for this user, or refuses anything else.
    #[must_use]
    pub fn new(scene: &'a Scene) -> Lab<'a> {
        for device in ["/dev/kvm", "/dev/net/tun"] {
            let opened = File::options().read(true).write(true).open(device);
            opened.unwrap_or_else(|error| {
                panic!("{device}: {error}\nhint: `echovisor check-host` says what this host lacks")
            });
        }
        let Network { client, primary, secondary, switch } = must(Network::new());
        let [client, switch] = [client, switch].map(Namespace);
        let [primary, secondary] = [primary, secondary].map(|lab::Site { namespace, address }| Site {
            namespace: Namespace(namespace),
            address,
            key: key(scene),
        });
        if let Some(options) = netem() {
            let client_side = [(&client, "eth0"), (&switch, "client")];
            let link = [&primary, &secondary].map(|site| (&site.namespace, LINK));
            for (namespace, interface) in client_side.into_iter().chain(link) {
                namespace.impair(interface, &options);
            }
        }
        let arbiter = scene.path(&scene.unique("arbiter"));
        fs::create_dir(&arbiter).expect("a folder");
        Lab { scene, client, primary, secondary, arbiter, _switch: switch }
    }

    /// Whether packets are lost on the way.
    #[must_use]
    pub fn loses_packets(&self) -> bool {
        netem().is_some_and(|options| options.contains("loss"))
    }

    /// Where a service of the guest listens.
    #[must_use]
    pub fn guest(&self, port: u16) -> SocketAddr {
        SocketAddr::new(GUEST.parse().expect("an address"), port)
    }

    /// A connection from the client to a service of the guest; waits until the guest is up. A read that takes longer than
    /// anything may take fails.
    ///
    /// # Panics
    /// If the guest accepts none.
    #[must_use]
    pub fn connect(&self, port: u16) -> TcpStream {
        let address = self.guest(port);
        let stream = wait_for(&format!("a connection to {address}"), || {
            let attempt = self.client.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)));
            attempt.map_err(|error| error.to_string())
        });
        stream.set_read_timeout(Some(LIMIT)).expect("a socket has a timeout");
        stream
    }

    /// The connections that the client has open, each with the ports of both ends.
    ///
    /// # Panics
    /// If the kernel does not tell.
    #[must_use]
    pub fn client_sockets(&self) -> Vec<String> {
        let table = self
            .client
            .enter(|| fs::read_to_string("/proc/thread-self/net/tcp"))
            .expect("a table of sockets");
        let columns = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let open = columns.filter(|columns| columns[3] == ESTABLISHED);
        open.map(|columns| format!("{} {}", columns[1], columns[2])).collect()
    }

    /// The file of the arbiter.
    #[must_use]
    pub fn arbiter(&self) -> PathBuf {
        self.arbiter.join("record")
    }

    /// Takes the arbiter away, as a file server that is gone would.
    ///
    /// # Panics
    /// If it is away already.
    pub fn hide_arbiter(&self) {
        fs::rename(&self.arbiter, self.arbiter.with_extension("away")).expect("the arbiter's folder");
    }

    /// Brings it back after [`Lab::hide_arbiter`].
    ///
    /// # Panics
    /// If it is not away.
    pub fn show_arbiter(&self) {
        fs::rename(self.arbiter.with_extension("away"), &self.arbiter).expect("the arbiter's folder");
    }

    /// Takes the lock of the arbiter's file, until the returned value is dropped.
    ///
    /// # Panics
    /// If nobody has used the arbiter yet.
    #[must_use]
    pub fn lock_arbiter(&self) -> File {
        let lock = File::open(self.arbiter().with_extension("lock")).expect("the arbiter's lock");
        lock.lock().expect("a file that can be locked");
        lock
    }

    /// What the arbiter has on record.
    ///
    /// # Panics
    /// If it has nothing.
    #[must_use]
    pub fn arbiter_record(&self) -> Value {
        let record = fs::read(self.arbiter()).expect("the arbiter's file");
        serde_json::from_slice(&record).expect("the arbiter's file is JSON")
    }

    /// Waits until `node` runs the guest without protection, and checks that it does so in this term and that the arbiter
    /// says so too.
    ///
    /// # Panics
    /// If anything of it is otherwise.
    pub fn must_be_alone(&self, node: &Node, term: u64) -> Status {
        let alone = |status: &Status| status.role == Role::Primary && status.more["mode"] == "solo";
        let status = node.wait_until("alone with its guest", alone);
        assert_eq!(status.term, term, "one takeover is one term: {status:?}");
        assert_eq!((status.protected, status.divergences), (false, 0), "{status:?}");
        let record = self.arbiter_record();
        assert_eq!((&record["mode"], &record["term"]), (&"solo".into(), &term.into()), "{record}");
        status
    }

    /// Both hosts.
    #[must_use]
    pub fn sites(&self) -> [&Site; 2] {
        [&self.primary, &self.secondary]
    }

    /// Pulls the cable of the link. Nobody is told but the two network cards.
    pub fn cut_link(&self) {
        self.primary.namespace.ip(&format!("link set {LINK} down"));
    }

    /// Plugs it in again.
    pub fn mend_link(&self) {
        self.primary.namespace.ip(&format!("link set {LINK} up"));
    }

    /// Bytes that crossed the link, both directions, with all headers.
    #[must_use]
    pub fn link_bytes(&self) -> u64 {
        self.primary.namespace.traffic(LINK).total()
    }

    /// Slows the link down to `rate`, such as `100mbit`, in both directions.
    pub fn shape_link(&self, rate: &str) {
        for site in [&self.primary, &self.secondary] {
            site.namespace.shape(LINK, rate);
        }
    }
}

impl Site {
    /// Bytes of frames that a node at this site has sent on behalf of its guest.
    #[must_use]
    pub fn guest_frames(&self) -> u64 {
        self.namespace.traffic(TAP).received
    }
}

/// A new key pair: the file of the private key.
///
/// # Panics
/// If `echovisor keygen` fails.
#[must_use]
pub fn key(scene: &Scene) -> PathBuf {
    let file = scene.path(&scene.unique("key"));
    let output = Command::new(echovisor()).args(["keygen", "--out"]).arg(&file).output();
    let output = output.expect("echovisor can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// What the network between client and guest, and the link, do to packets: options of netem.
fn netem() -> Option<String> {
    env::var("ECHOVISOR_NETEM").ok().filter(|options| !options.is_empty())
}
