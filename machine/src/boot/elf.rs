//! Reading a bare guest's ELF file.

use std::ops::Range;

use elf::{
    ElfBytes, ParseError,
    abi::{EM_X86_64, ET_EXEC, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, SHF_EXECINSTR, STT_FUNC, STT_OBJECT},
    endian::LittleEndian,
    file::Class,
};
use vm_memory::{Bytes, GuestAddress};

use super::layout::{HEADROOM_MIN, IMAGE_BASE};
use crate::memory::Memory;

/// Why an ELF file is no bare guest.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file is damaged, truncated or not ELF at all.
    #[error("not a readable ELF file: {0}")]
    Parse(#[from] ParseError),
    /// It is for another machine or of another kind.
    #[error("{found}: a bare guest is a static 64-bit little-endian x86-64 executable (ET_EXEC)")]
    Kind {
        /// What it is.
        found: String,
    },
    /// A segment lies where none may.
    #[error(
        "segment at {start:#x}..{end:#x} does not fit: segments lie from {IMAGE_BASE:#x} to {limit:#x} in this memory"
    )]
    Place {
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
        /// Where it may end.
        limit: u64,
    },
    /// Execution would start outside of every executable segment.
    #[error("entry point {0:#x} is in no executable segment")]
    Entry(u64),
}

/// A bare guest's ELF file, parsed and checked.
pub(super) struct Image<'a> {
    file: ElfBytes<'a, LittleEndian>,
    /// Where execution starts.
    pub(super) entry: u64,
    segments: Vec<Segment<'a>>,
}

struct Segment<'a> {
    address: u64,
    size: u64,
    data: &'a [u8],
    executable: bool,
}

impl<'a> Image<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Image<'a>, ElfError> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes)?;
        let header = file.ehdr;
        let kind = |found: String| Err(ElfError::Kind { found });
        if header.class != Class::ELF64 {
            return kind("a 32-bit ELF file".into());
        }
        if header.e_machine != EM_X86_64 {
            return kind(format!(
                "an ELF file for machine {}",
                elf::to_str::e_machine_to_human_str(header.e_machine).unwrap_or("unknown")
            ));
        }
        if header.e_type != ET_EXEC {
            return kind("a relocatable, dynamic or core ELF file".into());
        }
        let mut segments = Vec::new();
        for segment in file.segments().into_iter().flatten() {
            match segment.p_type {
                PT_INTERP | PT_DYNAMIC => return kind("a dynamically linked ELF file".into()),
                PT_LOAD if segment.p_memsz > 0 => segments.push(Segment {
                    address: segment.p_vaddr,
                    size: segment.p_memsz.max(segment.p_filesz),
                    data: file.segment_data(&segment)?,
                    executable: segment.p_flags & PF_X != 0,
                }),
                _ => {}
            }
        }
        let inside = |segment: &Segment| {
            (segment.address..segment.address.saturating_add(segment.size)).contains(&header.e_entry)
        };
        if !segments.iter().any(|segment| segment.executable && inside(segment)) {
            return Err(ElfError::Entry(header.e_entry));
        }
        Ok(Image { file, entry: header.e_entry, segments })
    }

    /// Copies the segments into `memory` and returns the first free byte behind them, page aligned.
    pub(super) fn load(&self, memory: &Memory) -> Result<u64, ElfError> {
        let limit = memory.low_size() - HEADROOM_MIN;
        let mut image_end = IMAGE_BASE;
        for segment in &self.segments {
            let (start, end) = (segment.address, segment.address.saturating_add(segment.size));
            let misplaced = |_| ElfError::Place { start, end, limit };
            if start < IMAGE_BASE || end > limit {
                return Err(ElfError::Place { start, end, limit });
            }
            memory.mmap().write_slice(segment.data, GuestAddress(start)).map_err(misplaced)?;
            image_end = image_end.max(end.next_multiple_of(0x1000));
        }
        Ok(image_end)
    }

    /// Stretches of code, each from the start of a function to the start of the next, so that a disassembler that loses
    /// its way in data finds it again. Files without symbols or sections give whole sections or segments.
    pub(super) fn code(&self) -> Result<Vec<(u64, &'a [u8])>, ElfError> {
        let mut stretches = Vec::new();
        let functions = self.functions()?;
        for (address, bytes) in self.executable()? {
            let range = address..address.saturating_add(bytes.len() as u64);
            let mut starts: Vec<u64> = functions
                .iter()
                .map(|(function, _)| function.start)
                .filter(|start| range.contains(start))
                .collect();
            starts.push(range.start);
            starts.sort_unstable();
            starts.dedup();
            let ends = starts.iter().skip(1).copied().chain([range.end]);
            for (start, end) in starts.iter().copied().zip(ends) {
                stretches.push((start, &bytes[(start - address) as usize..(end - address) as usize]));
            }
        }
        Ok(stretches)
    }

    /// The functions of the symbol table with their addresses, unsorted.
    pub(super) fn functions(&self) -> Result<Vec<(Range<u64>, &'a str)>, ElfError> {
        self.symbols(&[STT_FUNC])
    }

    /// The functions and variables of the symbol table with their addresses, unsorted.
    pub(super) fn functions_and_variables(&self) -> Result<Vec<(Range<u64>, &'a str)>, ElfError> {
        self.symbols(&[STT_FUNC, STT_OBJECT])
    }

    fn symbols(&self, kinds: &[u8]) -> Result<Vec<(Range<u64>, &'a str)>, ElfError> {
        let Some((symbols, names)) = self.file.symbol_table()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for symbol in symbols.iter().filter(|symbol| kinds.contains(&symbol.st_symtype())) {
            let name = names.get(symbol.st_name as usize)?;
            found.push((symbol.st_value..symbol.st_value.saturating_add(symbol.st_size), name));
        }
        Ok(found)
    }

    fn executable(&self) -> Result<Vec<(u64, &'a [u8])>, ElfError> {
        let sections: Vec<_> = self
            .file
            .section_headers()
            .into_iter()
            .flatten()
            .filter(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0)
            .collect();
        if sections.is_empty() {
            let segments = self.segments.iter().filter(|segment| segment.executable);
            return Ok(segments.map(|segment| (segment.address, segment.data)).collect());
        }
        sections.iter().map(|section| Ok((section.sh_addr, self.file.section_data(section)?.0))).collect()
    }
}
