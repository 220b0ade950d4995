//! Names for a guest's addresses.

use super::{ElfError, elf::Image};

/// The functions of a guest, by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Start, end, name; sorted by start.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// Reads the symbol table of an ELF file; a file without one gives no names.
    ///
    /// # Errors
    /// If the file is no bare guest.
    pub fn of(elf: &[u8]) -> Result<Symbols, ElfError> {
        let image = Image::parse(elf)?;
        let mut functions: Vec<_> = image
            .functions()?
            .into_iter()
            .map(|(range, name)| (range.start, range.end, name.to_owned()))
            .collect();
        functions.sort();
        Ok(Symbols { functions })
    }

    /// `name+0xoffset` of the function that holds `address`.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, end, name) = self.functions.get(after.checked_sub(1)?)?;
        (address < *end).then(|| format!("{name}+{:#x}", address - start))
    }
}
