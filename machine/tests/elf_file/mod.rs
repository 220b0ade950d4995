//! Writing small ELF files, good ones and bad ones.

/// Offset of `e_type` in the file.
#[allow(dead_code, reason = "not every test file damages its guests")]
pub(crate) const TYPE: usize = 16;
/// Offset of `e_machine`.
#[allow(dead_code, reason = "as above")]
pub(crate) const MACHINE: usize = 18;
/// Offset of the first program header.
pub(crate) const SEGMENTS: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;

/// Bytes of the guest, and where they go.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) executable: bool,
}

/// A guest that is nothing but this code, at the first address where it may be.
pub(crate) fn code(bytes: &[u8]) -> Vec<u8> {
    file(&[Segment { address: 0x20_0000, bytes: bytes.to_vec(), executable: true }], 0x20_0000, &[])
}

/// A file with these segments. If `functions` is not empty it has a symbol table with functions of one byte at these
/// addresses, and the first segment is its `.text`.
pub(crate) fn file(segments: &[Segment], entry: u64, functions: &[u64]) -> Vec<u8> {
    let mut data_at = (SEGMENTS + segments.len() * SEGMENT) as u64;
    let mut headers = Vec::new();
    let mut data = Vec::new();
    let text_at = data_at;
    for Segment { address, bytes, executable } in segments {
        let length = bytes.len() as u64;
        headers.extend(1_u32.to_le_bytes()); // PT_LOAD
        headers.extend(if *executable { 5_u32 } else { 6 }.to_le_bytes());
        for field in [data_at, *address, *address, length, length, 0x1000] {
            headers.extend(field.to_le_bytes());
        }
        data.extend(bytes);
        data_at += length;
    }
    let mut sections = Vec::new();
    if let Some(text) = segments.first().filter(|_| !functions.is_empty()) {
        let symbols_at = data_at;
        data.extend([0; 24]);
        for function in functions {
            data.extend([0, 0, 0, 0, 0x12, 0, 1, 0]); // no name, a global function of section 1
            data.extend(function.to_le_bytes());
            data.extend(1_u64.to_le_bytes());
        }
        let names_at = symbols_at + 24 * (functions.len() as u64 + 1);
        data.push(0);
        data_at = names_at + 1;
        let length = text.bytes.len() as u64;
        sections.extend([0; SECTION]);
        // PROGBITS, allocated and executable; SYMTAB with its string table; STRTAB.
        section(&mut sections, (1, 6), text.address, (text_at, length), 0, 0);
        section(&mut sections, (2, 0), 0, (symbols_at, names_at - symbols_at), 3, 24);
        section(&mut sections, (3, 0), 0, (names_at, 1), 0, 0);
    }
    let count = sections.len() / SECTION;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, version 1
    file.extend(entry.to_le_bytes());
    file.extend((SEGMENTS as u64).to_le_bytes());
    file.extend(if count == 0 { 0 } else { data_at }.to_le_bytes());
    for field in [0, 0, 64, SEGMENT, segments.len(), SECTION, count, 0] {
        file.extend((field as u16).to_le_bytes());
    }
    [file, headers, data, sections].concat()
}

fn section(
    out: &mut Vec<u8>,
    (kind, flags): (u32, u64),
    address: u64,
    (at, length): (u64, u64),
    link: u32,
    entry_size: u64,
) {
    out.extend(0_u32.to_le_bytes());
    out.extend(kind.to_le_bytes());
    for field in [flags, address, at, length] {
        out.extend(field.to_le_bytes());
    }
    out.extend(link.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    for field in [1, entry_size] {
        out.extend(u64::to_le_bytes(field));
    }
}
