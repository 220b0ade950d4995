//! What a recording holds: found out when it is opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use echovisor_event::Term;

use super::{
    error::{Damage, DamageKind, StoreError},
    header::Header,
    index::{Checkpoint, Index, Segment},
    layout::Layout,
    reader::{End, SegmentReader},
};

/// What a recording holds, by the index and the segments' files together.
pub(crate) struct Contents {
    /// In the order of their numbers.
    pub(crate) segments: Vec<Segment>,
    /// In the order of their positions.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Numbers of the segments about which the index was wrong or silent.
    pub(crate) rescanned: BTreeSet<u64>,
    /// What was found damaged on the way. Segments that the index knows well are not read.
    pub(crate) damaged: Vec<Damage>,
    pub(crate) term: Option<Term>,
}

impl Contents {
    /// Finds out what the recording holds. The index is believed where it fits the file; else the file is read.
    pub(crate) fn find(layout: &Layout, header: &Header, index: &Index) -> Result<Contents, StoreError> {
        let present = layout.numbers()?;
        let indexed = index.segments()?;
        let mut checkpoints = index.checkpoints()?;
        let mut counts = BTreeMap::new();
        checkpoints.iter().for_each(|checkpoint| *counts.entry(checkpoint.segment).or_insert(0) += 1);

        let newest = present.last().copied();
        let (mut segments, mut rescanned, mut damaged) = (Vec::new(), BTreeSet::new(), Vec::new());
        for number in present.iter().chain(indexed.keys()).copied().collect::<BTreeSet<_>>() {
            let known = indexed.get(&number);
            let len = fs::metadata(layout.segment(number)).ok().map(|metadata| metadata.len());
            if let Some(known) = known
                && known.sealed
                && counts.get(&number).copied().unwrap_or(0) == known.checkpoints
                && len == Some(known.bytes)
            {
                segments.push(*known);
                continue;
            }
            let opened = SegmentReader::open(
                &layout.segment(number),
                header.vm,
                number,
                end_of(known, newest, number),
            );
            let (scanned, found, damage) = match opened.map(SegmentReader::scan) {
                Ok((scanned, found, damage)) => (Some(scanned), found, damage),
                Err(damage) => (None, Vec::new(), Some(damage)),
            };
            // Of a damaged segment the index knows more than the file still says.
            if let Some(known) = known.filter(|_| damage.is_some()) {
                segments.push(*known);
            } else if let Some(scanned) = scanned {
                checkpoints.retain(|checkpoint| checkpoint.segment != number);
                checkpoints.extend(found);
                segments.push(scanned);
                rescanned.insert(number);
            }
            damaged.extend(damage.map(|damage| *damage));
        }
        checkpoints.sort_by_key(|checkpoint| checkpoint.position);
        let written = segments.iter().map(|segment| segment.start.term).max();
        Ok(Contents { segments, checkpoints, rescanned, damaged, term: index.newest_term()?.max(written) })
    }
}

/// Opens a segment for reading and checks that it continues the one before it.
pub(crate) fn open_segment(
    layout: &Layout,
    header: &Header,
    segments: &[Segment],
    number: u64,
) -> Result<SegmentReader, StoreError> {
    let Ok(place) = segments.binary_search_by_key(&number, |segment| segment.start.segment) else {
        return Err(StoreError::UnknownSegment { segment: number });
    };
    let newest = segments.last().map(|segment| segment.start.segment);
    let path = layout.segment(number);
    let reader =
        SegmentReader::open(&path, header.vm, number, end_of(Some(&segments[place]), newest, number))?;
    let start = *reader.start();
    if let Some(previous) = place.checked_sub(1).map(|place| &segments[place])
        && previous.sealed
        && previous.next_sequence == start.sequence
        && (previous.chain, previous.last) != (start.chain, start.position)
    {
        let kind = DamageKind::Chain { previous: previous.start.segment };
        let (first, last) = (start.position, start.position);
        let damage = Damage { file: path, segment: number, offset: 0, kind, first, last, batches: 0 };
        return Err(Box::new(damage).into());
    }
    Ok(reader)
}

/// What to expect at the end of a segment's file.
fn end_of(known: Option<&Segment>, newest: Option<u64>, number: u64) -> End {
    match known {
        Some(known) if known.sealed => End::Sealed,
        _ if newest != Some(number) => End::Sealed,
        known => End::Open { durable: known.map_or(0, |known| known.bytes) },
    }
}
