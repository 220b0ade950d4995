//! What was wrong with a secondary's state, found by comparing it with the primary's before it was replaced.

use std::fmt;

use echovisor_event::Position;
use echovisor_machine::{MachineState, Memory, boot::Symbols, cpu::CpuState};
use echovisor_snapshot::sync::{Differences, FieldDifference, field_differences};

/// Registers and fields that are told one by one.
const TOLD: usize = 32;

/// A divergence that was healed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where it was noticed.
    pub noticed: Position,
    /// By what.
    pub why: String,
    /// The position of the primary's state that replaced this one.
    pub healed: Position,
    /// Where this state stood when they were compared; elsewhere than that, what the guest has honestly done in between
    /// differs, too.
    pub compared: Option<Position>,
    /// The pages that differed.
    pub memory: Differences,
    /// The registers and fields of devices that differed.
    pub fields: Vec<FieldDifference>,
    /// The instruction at which the primary's guest stood.
    pub instruction: u64,
    /// Names of the guest's addresses, where its program is at hand.
    pub symbols: Symbols,
}

impl Report {
    /// Compares what was `found` here, and in which pages it differed, with the primary's state.
    #[must_use]
    pub fn new(
        (noticed, why): (Position, String),
        expected: &MachineState,
        found: Option<&MachineState>,
        memory: Differences,
        symbols: Symbols,
    ) -> Report {
        let fields = found.map_or(Vec::new(), |found| field_differences(expected, found));
        let compared = found.map(|found| found.position);
        let instruction = match &expected.cpu {
            CpuState::Kvm(state) => state.regs.rip,
            CpuState::Scripted(state) => state.pc,
        };
        Report { noticed, why, healed: expected.position, compared, memory, fields, instruction, symbols }
    }

    /// Whether both states stood at the same position, so that each difference is a part of the divergence.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.compared == Some(self.healed)
    }

    /// Whether nothing differed but what hardware marks in page tables on its own account.
    #[must_use]
    pub fn is_benign(&self) -> bool {
        self.is_exact()
            && self.fields.is_empty()
            && self.memory.pages == self.memory.benign
            && self.memory.pages > 0
    }

    /// Whether nothing differed any more: the guest had overwritten it since it was noticed.
    #[must_use]
    pub fn is_overwritten(&self) -> bool {
        self.is_exact() && self.fields.is_empty() && self.memory.pages == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { noticed, why, healed, compared, memory, fields, instruction, symbols } = self;
        let name = |address| symbols.resolve(address).map_or(String::new(), |name| format!(" in {name}"));
        write!(f, "noticed at position {noticed}, healed at {healed}: {why}")?;
        write!(f, "\n  the guest stood at {instruction:#x}{}", name(*instruction))?;
        match compared {
            Some(at) if at == healed => {}
            Some(at) => write!(
                f,
                "\n  compared was the state at {at}, so what the guest did from there to {healed} differs, too"
            )?,
            None => {
                f.write_str("\n  it stood within an instruction: registers and devices were not compared")?
            }
        }
        if self.is_overwritten() {
            return f.write_str("\n  nothing differs any more: the guest has overwritten it");
        }
        if self.is_benign() {
            f.write_str("\n  benign: nothing but accessed and dirty bits of page tables")?;
        }
        write!(
            f,
            "\n  {} pages differ, {} of them in accessed and dirty bits only",
            memory.pages, memory.benign
        )?;
        for page in &memory.listed {
            let start = Memory::page_address(page.page);
            write!(f, "\n  page {} ({start:#x}): {} bytes", page.page, page.count)?;
            for (offset, expected, found) in &page.bytes {
                let address = start + u64::from(*offset);
                write!(f, "; {address:#x}{} is {found:#04x}, not {expected:#04x}", name(address))?;
            }
        }
        if memory.pages > memory.listed.len() as u64 {
            write!(f, "\n  and {} more pages", memory.pages - memory.listed.len() as u64)?;
        }
        for FieldDifference { name, expected, found } in fields.iter().take(TOLD) {
            write!(f, "\n  {name} is {found}, not {expected}")?;
        }
        if fields.len() > TOLD {
            write!(f, "\n  and {} more registers and fields", fields.len() - TOLD)?;
        }
        Ok(())
    }
}
