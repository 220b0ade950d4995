//! The network stack in bursts.

use crate::addresses::Addresses;
use crate::device::Device;
use alloc::vec::Vec;
use rt::control;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::time::Instant;

/// Device, interface and sockets.
pub struct Stack {
    device: Device,
    interface: Interface,
    /// The sockets; whoever adds one keeps to the number that [`Stack::new`] was given.
    pub sockets: SocketSet<'static>,
}

/// The virtual clock as smoltcp tells time.
fn now() -> Instant {
    Instant::from_micros((control::clock() / 1000) as i64)
}

impl Stack {
    /// The stack on the machine's network device, if it has one, with room for a number of sockets.
    pub fn new(addresses: &Addresses, sockets: usize) -> Option<Self> {
        let mut device = Device::find()?;
        let mut config = Config::new(device.address().into());
        config.random_seed = control::seed()[0];
        let mut interface = Interface::new(config, &mut device, now());
        interface.update_ip_addrs(|ips| ips.push(addresses.ip.into()).expect("one address has room"));
        if let Some(gateway) = addresses.gateway {
            interface.routes_mut().add_default_ipv4_route(gateway).expect("one route has room");
        }
        // All the room at once: growing later could fail, and smoltcp would not survive that.
        Some(Self { device, interface, sockets: SocketSet::new(Vec::with_capacity(sockets)) })
    }

    /// Takes up to `limit` frames; returns whether there may be more.
    pub fn receive(&mut self, limit: usize) -> bool {
        let now = now();
        (0..limit).all(|_| {
            let result = self.interface.poll_ingress_single(now, &mut self.device, &mut self.sockets);
            !matches!(result, PollIngressSingleResult::None)
        })
    }

    /// Sends all that the sockets have to say, as far as there is room.
    pub fn transmit(&mut self) {
        let now = now();
        self.interface.poll_maintenance(now);
        while let PollResult::SocketStateChanged =
            self.interface.poll_egress(now, &mut self.device, &mut self.sockets)
        {}
    }

    /// Rings the doorbell. Sleeps until there is input, the stack has a timer, or `deadline` in ns has passed.
    pub fn wait(&mut self, deadline: Option<u64>) {
        let timer = self.interface.poll_at(now(), &self.sockets);
        let timer = timer.map(|at| at.total_micros().unsigned_abs() * 1000);
        // A frame that waits for room to answer it is input that the machine has already given.
        let waiting = self.device.has_received().then_some(0);
        control::wait([timer, deadline, waiting].into_iter().flatten().min());
        self.device.reclaim();
    }
}
