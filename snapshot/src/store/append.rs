//! Appending objects to the packs.

use std::collections::{BTreeSet, HashMap};

use echovisor_event::Digest;

use super::{
    error::StoreError,
    index::{Index, Place},
    layout::Layout,
    pack::Pack,
    record::{Kind, Packer},
};

/// Objects that may be appended before they are made durable and indexed: what is known of them lies in memory until then.
const PENDING_MAX: usize = 1 << 16;

/// Where new objects go.
pub(super) struct Appender {
    /// The pack that still takes some.
    pack: Option<Pack>,
    next_pack: u64,
    packer: Packer,
    /// Objects that were appended and may not be durable, so that the index must not tell of them.
    pending: HashMap<Digest, Place>,
}

impl Appender {
    pub(super) fn new(layout: &Layout, pack: Option<Pack>, next_pack: u64) -> Result<Appender, StoreError> {
        let packer = Packer::new().map_err(StoreError::io("opening", &layout.dir))?;
        Ok(Appender { pack, next_pack, packer, pending: HashMap::new() })
    }

    /// Whether the store has an object: then it has all that is below it.
    pub(super) fn has(&self, index: &Index, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.pending.contains_key(digest) || index.find(digest)?.is_some())
    }

    /// Appends an object, and returns by how many bytes the pack has grown.
    pub(super) fn put(
        &mut self,
        layout: &Layout,
        index: &Index,
        kind: Kind,
        digest: Digest,
        content: &[u8],
    ) -> Result<u64, StoreError> {
        if self.pending.len() >= PENDING_MAX || self.pack.as_ref().is_some_and(Pack::is_full) {
            self.commit(index)?;
        }
        let pack = match self.pack.take().filter(|pack| !pack.is_full()) {
            Some(pack) => pack,
            None => {
                let number = self.next_pack;
                let pack = Pack::create(number, layout.pack(number))?;
                self.next_pack = number.saturating_add(1);
                pack
            }
        };
        let pack = self.pack.insert(pack);
        let (offset, len) = pack.append(|out| self.packer.put(out, kind, digest, content))?;
        self.pending.insert(digest, Place { pack: pack.number, offset, len });
        Ok(pack.len() - offset)
    }

    /// Makes what was appended durable, and then known.
    pub(super) fn commit(&mut self, index: &Index) -> Result<(), StoreError> {
        if let Some(pack) = &mut self.pack {
            pack.sync()?;
            index.add(&self.pending)?;
            index.set_pack(pack.number, pack.len())?;
        }
        self.pending.clear();
        Ok(())
    }

    /// Forgets what was appended since the last commit.
    pub(super) fn undo(&mut self) {
        self.pending.clear();
        if let Some(pack) = &mut self.pack {
            pack.undo();
        }
    }

    /// Appends no more to a pack that is to go.
    pub(super) fn leave(&mut self, victims: &BTreeSet<u64>) {
        self.pack.take_if(|pack| victims.contains(&pack.number));
    }
}
