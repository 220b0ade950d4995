//! Tests of the loader and of what it lays out.

mod elf;
#[path = "../../../tests/elf_file/mod.rs"]
mod elf_file;
mod scan;
mod tables;
