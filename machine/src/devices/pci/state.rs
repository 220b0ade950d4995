//! The saved state of a configuration space.

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    super::error::DeviceStateError,
    config_space::{ConfigSpace, SIZE},
};

/// The content of a configuration space. What the guest cannot write is in it too: it says of which device it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpaceState {
    /// All bytes.
    pub bytes: [u8; SIZE],
}

impl ConfigSpace {
    pub(in crate::devices) fn save(&self) -> ConfigSpaceState {
        ConfigSpaceState { bytes: self.bytes }
    }

    /// Takes over a saved content, if it differs from the present one in writable bits only.
    pub(in crate::devices) fn restore(
        &mut self,
        function: &'static str,
        state: &ConfigSpaceState,
    ) -> Result<(), DeviceStateError> {
        let differs =
            |offset: &usize| (state.bytes[*offset] ^ self.bytes[*offset]) & !self.writable[*offset] != 0;
        if let Some(offset) = (0..SIZE).find(differs) {
            return Err(DeviceStateError::ConfigSpace { function, offset });
        }
        self.bytes = state.bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_bridge;

    #[test]
    fn only_writable_bits_may_differ() {
        let mut space = host_bridge();
        space.write(0x0c, &[16]);
        let mut state = space.save();
        let mut restored = host_bridge();
        restored.restore("bridge", &state).unwrap();
        assert_eq!(restored.save(), state);
        state.bytes[2] ^= 1;
        let error = restored.restore("bridge", &state).unwrap_err();
        assert_eq!(error.to_string(), "bridge: byte 0x2 of the configuration space is of another device");
    }
}
