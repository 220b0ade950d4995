//! Who is recorded: the file `DIR/header`.

use std::{fs::File, path::Path};

use echovisor_event::{Digest, VmId};
use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::{envelope, error::StoreError, files};
use crate::{
    limits::{CONFIG_MAX, TEXT_MAX},
    link::Fingerprint,
};

const MAGIC: [u8; 8] = *b"ECHOHEAD";

/// What a replay must know before the first batch. Written once.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The recorded virtual machine.
    pub vm: VmId,
    /// Host and machine that recorded; a host that differs cannot replay.
    pub fingerprint: Fingerprint,
    /// The guest: digest of its program or kernel, initrd and command line.
    pub guest: Digest,
    /// The machine's configuration, for the machine to read; at most [`CONFIG_MAX`] bytes.
    pub machine: Vec<u8>,
}

/// Room for a header with the longest configuration and text.
const BODY_MAX: usize = CONFIG_MAX + TEXT_MAX + 1024;

impl Header {
    pub(crate) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let len = self.machine.len();
        if len > CONFIG_MAX {
            return Err(StoreError::HeaderTooLong { len, max: CONFIG_MAX });
        }
        let mut header = self.clone();
        header.fingerprint.text.truncate(header.fingerprint.text.floor_char_boundary(TEXT_MAX));
        let body = rkyv::to_bytes::<rancor::Panic>(&header).expect("plain values serialize into memory");
        files::write_whole(path, &envelope::seal(MAGIC, &body)).map_err(StoreError::io("writing", path))?;
        Ok(())
    }

    pub(crate) fn read(path: &Path) -> Result<Header, StoreError> {
        let mut file = File::open(path).map_err(StoreError::io("opening", path))?;
        let wrong = |problem: String| StoreError::Header { file: path.to_owned(), problem };
        let body = envelope::open(MAGIC, BODY_MAX, &mut file).map_err(|error| wrong(error.to_string()))?;
        rkyv::from_bytes::<Header, rancor::Error>(&body)
            .map_err(|_| wrong("its body is not laid out as a header".to_owned()))
    }
}
