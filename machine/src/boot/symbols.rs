//! Names for a guest's addresses.

use super::{ElfError, elf::Image};

/// The functions and variables of a guest, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Start, end, name; sorted by start.
    named: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// Reads the symbol table of an ELF file; a file without one gives no names.
    ///
    /// # Errors
    /// If the file is no bare guest.
    pub fn of(elf: &[u8]) -> Result<Symbols, ElfError> {
        let image = Image::parse(elf)?;
        let mut named: Vec<_> = image
            .functions_and_variables()?
            .into_iter()
            .map(|(range, name)| (range.start, range.end, name.to_owned()))
            .collect();
        named.sort();
        Ok(Symbols { named })
    }

    /// The same with other names, such as readable ones.
    #[must_use]
    pub fn renamed(mut self, rename: impl Fn(&str) -> String) -> Symbols {
        self.named.iter_mut().for_each(|(.., name)| *name = rename(name));
        self
    }

    /// `name+0xoffset` of the function or variable that holds `address`.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Option<String> {
        let after = self.named.partition_point(|(start, ..)| *start <= address);
        let (start, end, name) = self.named.get(after.checked_sub(1)?)?;
        (address < *end).then(|| format!("{name}+{:#x}", address - start))
    }
}
