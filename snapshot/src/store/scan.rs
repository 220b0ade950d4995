//! Finding the objects in the packs without an index.

use std::collections::HashMap;

use echovisor_event::Digest;

use super::{
    damage::{DamageKind, Part},
    index::Place,
    layout::Layout,
    pack,
    record::{self, Kind, PREFIX, Prefix, Unpacker},
};

/// What a part of a pack holds.
pub(super) enum Found<'a> {
    /// An object, whole.
    Object(&'a Prefix, Place, &'a [u8]),
    /// A record whose body is not the object that it should be.
    Broken(&'a Prefix, Place, DamageKind),
    /// Something else, which begins at this offset.
    Strange(u64, Part, DamageKind),
}

/// Looks at a pack from the offset `from` on, and returns the end of its last whole record, if more could be appended there.
/// Behind damage it goes on where the next record can be recognised.
pub(super) fn pack(
    layout: &Layout,
    number: u64,
    from: u64,
    unpacker: &mut Unpacker,
    found: &mut dyn FnMut(Found<'_>),
) -> Option<u64> {
    let bytes = match pack::read(&layout.pack(number)) {
        Ok(bytes) => bytes,
        Err(kind) => {
            found(Found::Strange(0, Part::Pack, kind));
            return None;
        }
    };
    let checked = pack::check(&bytes);
    let is_pack = checked.is_ok();
    if let Err(kind) = checked {
        found(Found::Strange(0, Part::Pack, kind));
    }
    let mut at = from as usize;
    let mut end = at;
    // Where bytes begin that are no record.
    let mut strange: Option<usize> = None;
    while at < bytes.len() {
        let Some(prefix) = Prefix::read(&bytes[at..]) else {
            strange.get_or_insert(at);
            at += 1;
            continue;
        };
        if let Some(start) = strange.take() {
            found(Found::Strange(start as u64, Part::Record, DamageKind::Changed("record")));
        }
        let place = Place { pack: number, offset: at as u64, len: prefix.len };
        let next = at + prefix.record_len();
        let Some(body) = bytes.get(at + PREFIX..next) else {
            let missing = (next - bytes.len()) as u64;
            found(Found::Broken(&prefix, place, DamageKind::Truncated { missing }));
            break;
        };
        match unpacker.open(&prefix, body) {
            Ok(content) => {
                end = next;
                found(Found::Object(&prefix, place, content));
            }
            Err(kind) => found(Found::Broken(&prefix, place, kind)),
        }
        at = next;
    }
    if let Some(start) = strange {
        let kind = match bytes.len() - start {
            some if some < PREFIX => DamageKind::Truncated { missing: (PREFIX - some) as u64 },
            _ => DamageKind::Changed("record"),
        };
        found(Found::Strange(start as u64, Part::Record, kind));
    }
    is_pack.then_some(end as u64)
}

/// Objects that were found in packs.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) places: HashMap<Digest, Place>,
    /// Where those should be that are damaged.
    pub(super) broken: HashMap<Digest, Place>,
    /// The nodes among them with their children.
    nodes: HashMap<Digest, Vec<Digest>>,
}

impl Objects {
    /// Adds what a pack holds from the offset `from` on; returns what [`pack`] does.
    pub(super) fn add(
        &mut self,
        layout: &Layout,
        number: u64,
        from: u64,
        unpacker: &mut Unpacker,
    ) -> Option<u64> {
        pack(layout, number, from, unpacker, &mut |found| match found {
            Found::Object(prefix, place, content) => {
                self.places.insert(prefix.digest, place);
                if prefix.kind == Kind::Node {
                    self.nodes.insert(prefix.digest, record::children(content).collect());
                }
            }
            Found::Broken(prefix, place, _) => {
                self.broken.insert(prefix.digest, place);
            }
            Found::Strange(..) => {}
        })
    }

    /// Leaves only nodes below which nothing is missing, so that nobody who finds a node has to look for what is below.
    /// `known` is what is whole besides.
    pub(super) fn retain_whole(&mut self, known: impl Fn(&Digest) -> bool) {
        loop {
            let before = self.nodes.len();
            let places = &mut self.places;
            self.nodes.retain(|digest, children| {
                let whole = children.iter().all(|child| places.contains_key(child) || known(child));
                if !whole {
                    places.remove(digest);
                }
                whole
            });
            if self.nodes.len() == before {
                return;
            }
        }
    }
}
