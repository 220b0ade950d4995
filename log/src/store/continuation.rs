//! How a recording may be continued: the file `DIR/writer`, and how the log ends.

use std::{fs::File, io, path::Path};

use echovisor_event::NodeId;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::{envelope, error::StoreError, files, writer::Store};
use crate::{Batch, Record};

const MAGIC: [u8; 8] = *b"ECHOWRIT";

/// Who writes the recording, and what that promises. It is on disk before the guest runs.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The node. It stays the same when the guest is started again, since the arbiter knows it by this.
    pub node: NodeId,
    /// Whether an arbiter decides who may go on with the guest.
    pub arbitrated: bool,
    /// Whether no effect left before the log behind it was on disk.
    pub durable: bool,
}

impl Writer {
    fn write(self, path: &Path) -> Result<(), StoreError> {
        let body = rkyv::to_bytes::<rancor::Panic>(&self).expect("plain values serialize into memory");
        files::write_whole(path, &envelope::seal(MAGIC, &body)).map_err(StoreError::io("writing", path))?;
        Ok(())
    }

    pub(super) fn read(path: &Path) -> Result<Option<Writer>, StoreError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("opening", path)(error)),
        };
        let wrong = |problem: String| StoreError::Writer { file: path.to_owned(), problem };
        let body = envelope::open(MAGIC, size_of::<ArchivedWriter>(), &mut file)
            .map_err(|error| wrong(error.to_string()))?;
        let writer = rkyv::from_bytes::<Writer, rancor::Error>(&body);
        writer.map(Some).map_err(|_| wrong("its body is not laid out as a writer".to_owned()))
    }
}

impl Store {
    /// Who wrote the recording last; `None` if that was never said.
    ///
    /// # Errors
    ///
    /// [`StoreError::Writer`], [`StoreError::Io`].
    pub fn writer(&self) -> Result<Option<Writer>, StoreError> {
        Writer::read(&self.layout().writer())
    }

    /// Says, durably, who writes the recording from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::DiskFull`].
    pub fn set_writer(&self, writer: Writer) -> Result<(), StoreError> {
        writer.write(&self.layout().writer())
    }

    /// Whether the log ends where somebody stopped the guest, so that nothing can be missing behind it. The log of a guest
    /// that never ran does, too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damage`].
    pub fn ends_on_purpose(&self) -> Result<bool, StoreError> {
        let Some(last) = self.segments().last() else { return Ok(true) };
        let mut reader = self.read(last.start.segment)?;
        let (mut batch, mut stopped) = (Batch::new(), false);
        while reader.next(&mut batch)?.is_some() {
            stopped = batch.records().last().is_some_and(|record| record.what == Record::Stop);
        }
        Ok(stopped)
    }
}
