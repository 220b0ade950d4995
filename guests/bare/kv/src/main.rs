//! A key-value store: RESP2 on port 6379, a few pages over HTTP on port 80.
//!
//! | argument | meaning | default |
//! |---|---|---|
//! | `ip=A.B.C.D/N` | address and prefix | 10.0.0.2/24 |
//! | `gw=A.B.C.D` | gateway | none |
#![no_std]
#![no_main]

extern crate alloc;

mod connection;
mod memory;
mod server;

use net::Addresses;
use rt::println;
use server::Server;

rt::entry!(main);

fn main() -> ! {
    let addresses = Addresses::from_arguments();
    let Some(mut server) = Server::new(&addresses) else {
        println!("kv: no network device");
        rt::power::off(1)
    };
    println!("kv: {}, RESP on {}, HTTP on {}", addresses.ip, server::RESP_PORT, server::HTTP_PORT);
    loop {
        server.burst();
    }
}
