//! Bringing the index up to date with the packs.

use std::fs;

use super::{
    error::StoreError,
    index::Index,
    layout::Layout,
    pack::{HEADER, Pack},
    record::Unpacker,
    scan::Objects,
};

/// Brings the index up to date, and opens the newest pack, if more can be appended to it.
///
/// Normally the index is short of what was written to the newest pack after its last flush. Where it differs in another way,
/// it is made anew from all packs.
pub(super) fn recover(layout: &Layout, index: &Index) -> Result<Option<Pack>, StoreError> {
    let lengths = lengths(layout)?;
    let known = index.packs()?;
    let newest = lengths.last().map(|(number, _)| *number);
    let trusted = known.keys().all(|number| lengths.iter().any(|(there, _)| there == number))
        && lengths.iter().all(|(number, len)| match known.get(number) {
            Some(bytes) => bytes == len || (bytes < len && newest == Some(*number)),
            None => newest == Some(*number),
        });
    let end = if trusted {
        let newest = lengths.last().map(|(number, len)| (*number, *len));
        newest.map_or(Ok(None), |(number, len)| {
            let from = known.get(&number).copied().unwrap_or(HEADER);
            catch_up(layout, index, number, from, len)
        })?
    } else {
        rebuild(layout, index)?
    };
    newest.zip(end).map(|(number, end)| Pack::resume(number, layout.pack(number), end)).transpose()
}

/// Makes the index anew from what is whole in the packs. Returns where the newest one can be continued.
pub(super) fn rebuild(layout: &Layout, index: &Index) -> Result<Option<u64>, StoreError> {
    let mut unpacker = unpacker(layout)?;
    let mut objects = Objects::default();
    let lengths = lengths(layout)?;
    let mut end = None;
    index.clear()?;
    for (number, _) in &lengths {
        end = objects.add(layout, *number, HEADER, &mut unpacker);
    }
    objects.retain_whole(|_| false);
    index.add(&objects.places)?;
    let newest = lengths.last().map(|(number, _)| *number);
    for (number, len) in lengths {
        index.set_pack(number, end.filter(|_| newest == Some(number)).unwrap_or(len))?;
    }
    index.flush()?;
    Ok(end)
}

/// Adds what stands in the newest pack behind its first `from` bytes, of `len`. Returns where it can be continued.
fn catch_up(
    layout: &Layout,
    index: &Index,
    number: u64,
    from: u64,
    len: u64,
) -> Result<Option<u64>, StoreError> {
    if from == len {
        return Ok(Some(from));
    }
    let mut objects = Objects::default();
    let end = objects.add(layout, number, from, &mut unpacker(layout)?);
    objects.retain_whole(|digest| index.find(digest).is_ok_and(|place| place.is_some()));
    index.add(&objects.places)?;
    index.set_pack(number, end.unwrap_or(len))?;
    index.flush()?;
    Ok(end)
}

/// The packs with their lengths, bytes.
fn lengths(layout: &Layout) -> Result<Vec<(u64, u64)>, StoreError> {
    let length = |number| {
        let path = layout.pack(number);
        let len = fs::metadata(&path).map_err(StoreError::io("reading", &path))?.len();
        Ok((number, len))
    };
    layout.pack_numbers()?.into_iter().map(length).collect()
}

fn unpacker(layout: &Layout) -> Result<Unpacker, StoreError> {
    Unpacker::new().map_err(StoreError::io("opening", &layout.dir))
}
