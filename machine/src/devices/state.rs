//! The saved state of all devices.

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    ConfigSpaceState, ConsoleState, DeviceStateError, Devices, DevicesConfig, TransportState,
    pci::ConfigAddress,
};
use crate::memory::Memory;

/// The whole state of all devices. What does not change after power-on (MAC address, MTU) is not in it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DevicesState {
    /// The console.
    pub console: ConsoleState,
    /// The PCI address register.
    pub config_address: u32,
    /// The PCI host bridge.
    pub host_bridge: ConfigSpaceState,
    /// The network device, if there is one.
    pub net: Option<TransportState>,
}

impl Devices {
    /// The whole state. A machine that restores it goes on exactly like this one.
    #[must_use]
    pub fn save(&self) -> DevicesState {
        DevicesState {
            console: self.console.save(),
            config_address: self.config_address.get(),
            host_bridge: self.host_bridge.save(),
            net: self.net.as_ref().map(|net| net.save()),
        }
    }

    /// Devices in a saved state, which may come from anyone. `memory` need not have its content yet.
    ///
    /// # Errors
    /// If no machine with this configuration could have saved it.
    pub fn restore(
        config: &DevicesConfig,
        state: &DevicesState,
        memory: &Memory,
    ) -> Result<Devices, DeviceStateError> {
        let mut devices = Devices::new(config);
        devices.console = (&state.console).try_into()?;
        devices.config_address = ConfigAddress::try_from(state.config_address)?;
        devices.host_bridge.restore("host bridge", &state.host_bridge)?;
        match (&mut devices.net, &state.net) {
            (Some(net), Some(state)) => net.restore(state, memory)?,
            (None, None) => {}
            (_, saved) => {
                return Err(DeviceStateError::NetPresence { saved: saved.is_some() });
            }
        }
        Ok(devices)
    }
}
