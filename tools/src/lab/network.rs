//! Two hosts, a client, and all cables.

use super::{LabError, Namespace, Traffic};

/// The client's address.
pub const CLIENT: &str = "10.0.0.1";

/// The guest's address, on whichever host it lives.
pub const GUEST: &str = "10.0.0.2";

/// The interface between the two hosts, on either of them. Nothing else goes through it, so its counters are what
/// replication costs.
pub const LINK: &str = "link0";

/// The TAP for the guest, on either host.
pub const TAP: &str = "tap0";

/// Two hosts and a client.
#[derive(Debug)]
pub struct Network {
    /// Where clients live.
    pub client: Namespace,
    /// The host of the first primary.
    pub primary: Site,
    /// The host of the first secondary.
    pub secondary: Site,
    /// The switch between all three.
    pub switch: Namespace,
}

/// A host for nodes: a TAP for the guest, and one end of the link.
#[derive(Debug)]
pub struct Site {
    /// Its network.
    pub namespace: Namespace,
    /// Its address on the link.
    pub address: &'static str,
}

impl Network {
    /// Lays all cables.
    ///
    /// # Errors
    /// If this host has no TAP devices for this user, or refuses anything else.
    pub fn new() -> Result<Network, LabError> {
        let switch = Namespace::new()?;
        bridge(&switch)?;
        let client = Namespace::new()?;
        cable(&client, "eth0", &switch, "client")?;
        client.ip(&format!("address add {CLIENT}/24 dev eth0"))?;
        let primary = Site::new("10.1.0.1", &switch, "primary")?;
        let secondary = Site::new("10.1.0.2", &switch, "secondary")?;
        cable(&primary.namespace, LINK, &secondary.namespace, LINK)?;
        for site in [&primary, &secondary] {
            site.namespace.ip(&format!("address add {}/30 dev {LINK}", site.address))?;
        }
        for port in ["client", "primary", "secondary"] {
            switch.ip(&format!("link set {port} master br0"))?;
        }
        Ok(Network { client, primary, secondary, switch })
    }

    /// Slows the link down to `rate`, such as `100mbit`, in both directions.
    ///
    /// # Errors
    /// If the kernel cannot do it.
    pub fn shape_link(&self, rate: &str) -> Result<(), LabError> {
        [&self.primary, &self.secondary].into_iter().try_for_each(|site| site.namespace.shape(LINK, rate))
    }
}

impl Site {
    fn new(address: &'static str, switch: &Namespace, port: &str) -> Result<Site, LabError> {
        let namespace = Namespace::new()?;
        bridge(&namespace)?;
        namespace.ip(&format!("tuntap add {TAP} mode tap"))?;
        cable(&namespace, "eth0", switch, port)?;
        for interface in ["eth0", TAP] {
            namespace.ip(&format!("link set {interface} up master br0"))?;
        }
        Ok(Site { namespace, address })
    }

    /// What has gone to the guest at this site and come from it.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn guest_traffic(&self) -> Result<Traffic, LabError> {
        // What the host sends to the TAP is what the guest receives.
        let Traffic { received, sent } = self.namespace.traffic(TAP)?;
        Ok(Traffic { received: sent, sent: received })
    }
}

/// A bridge `br0` that forwards from its first moment on.
fn bridge(namespace: &Namespace) -> Result<(), LabError> {
    namespace.ip("link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0")?;
    namespace.ip("link set br0 up")
}

/// A cable between two namespaces.
fn cable(here: &Namespace, interface: &str, there: &Namespace, port: &str) -> Result<(), LabError> {
    let peer = there.path()?;
    here.ip(&format!("link add {interface} type veth peer name {port} netns {}", peer.display()))?;
    here.ip(&format!("link set {interface} up"))?;
    there.ip(&format!("link set {port} up"))
}
