//! The guest's place in the network.

use smoltcp::wire::{Ipv4Address, Ipv4Cidr};

/// Address, network and way out.
pub struct Addresses {
    /// `ip=`: the guest's address and the length of its network's prefix.
    pub ip: Ipv4Cidr,
    /// `gw=`: the gateway, if there is one.
    pub gateway: Option<Ipv4Address>,
}

impl Addresses {
    /// From the guest's arguments; 10.0.0.2/24 without a gateway if they say nothing.
    pub fn from_arguments() -> Self {
        let default = Ipv4Cidr::new(Ipv4Address::new(10, 0, 0, 2), 24);
        Self { ip: rt::arguments::parse("ip").unwrap_or(default), gateway: rt::arguments::parse("gw") }
    }
}
