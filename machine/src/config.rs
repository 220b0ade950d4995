//! What a machine is made of: all that a secondary must know to build the same.

use echovisor_event::{
    Digest,
    limits::{MEMORY_MAX, MEMORY_MIN, MEMORY_STEP},
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::devices::DevicesConfig;

/// The configuration of a machine. It travels with every image and stands in every recording's header.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Guest memory, bytes.
    pub memory: u64,
    /// MAC address of the network device; `None` for no device.
    pub mac: Option<[u8; 6]>,
    /// Largest packet that the network carries, bytes.
    pub mtu: u16,
    /// What the guest is called.
    pub guest: String,
    /// What the guest was told.
    pub arguments: String,
    /// Digest of the guest's program.
    pub program: Digest,
}

/// Bytes that are no machine's configuration.
#[derive(Debug, thiserror::Error)]
#[error("not a machine configuration: {0}")]
pub struct ConfigError(String);

impl MachineConfig {
    /// Which devices the machine has.
    #[must_use]
    pub fn devices(&self) -> DevicesConfig {
        DevicesConfig { mac: self.mac, mtu: self.mtu }
    }

    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("plain data serialises").into_vec()
    }

    /// Reads a configuration that came from outside.
    ///
    /// # Errors
    /// If it is none, or of a machine that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<MachineConfig, ConfigError> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let config = rkyv::from_bytes::<MachineConfig, rkyv::rancor::Error>(&aligned)
            .map_err(|error| ConfigError(error.to_string()))?;
        let memory = config.memory;
        if !memory.is_multiple_of(MEMORY_STEP) || !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
            return Err(ConfigError(format!("a guest memory of {memory} bytes")));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> MachineConfig {
        MachineConfig {
            memory: MEMORY_MIN,
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            guest: "kv".into(),
            arguments: "ip=10.0.0.2/24".into(),
            program: Digest([7; 32]),
        }
    }

    #[test]
    fn it_travels() {
        for config in [config(), MachineConfig { mac: None, memory: MEMORY_MAX, ..config() }] {
            assert_eq!(MachineConfig::from_bytes(&config.to_bytes()).unwrap(), config);
        }
    }

    #[test]
    fn a_machine_that_cannot_be_is_refused() {
        for memory in [0, MEMORY_MIN - MEMORY_STEP, MEMORY_MIN + 1, MEMORY_MAX + MEMORY_STEP, u64::MAX] {
            let bytes = MachineConfig { memory, ..config() }.to_bytes();
            assert!(MachineConfig::from_bytes(&bytes).is_err(), "{memory} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(
            at in any::<prop::sample::Index>(), byte: u8, length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = config().to_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = MachineConfig::from_bytes(&bytes);
            let _ = MachineConfig::from_bytes(&bytes[..length.index(bytes.len())]);
        }
    }
}
