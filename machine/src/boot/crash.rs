//! What is known of a guest that an exception ended.

use std::fmt;

use vm_memory::{Bytes, GuestAddress};

use crate::{cpu::kvm::KvmState, memory::Memory};

/// An exception that the guest took, as its ring-0 stub left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The exception's vector.
    pub vector: u64,
    /// Its error code; 0 for those that have none.
    pub error_code: u64,
    /// The instruction that caused it.
    pub rip: u64,
    /// The guest's stack pointer.
    pub rsp: u64,
    /// CR2: the address of a page fault.
    pub address: u64,
    /// RAX RBX RCX RDX RSI RDI RBP R8 to R15 at the instruction.
    pub registers: [u64; 15],
}

impl Crash {
    /// Reads what the stub pushed: RDX, RAX, vector, error code, and the processor's own RIP, CS, RFLAGS, RSP, SS.
    pub(crate) fn read(state: &KvmState, memory: &Memory) -> Option<Crash> {
        let pushed: [u64; 9] = memory.mmap().read_obj(GuestAddress(state.regs.rsp)).ok()?;
        let [rdx, rax, vector, error_code, rip, _cs, _rflags, rsp, _ss] = pushed;
        let r = &state.regs;
        let registers = [
            rax, r.rbx, r.rcx, rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15,
        ];
        Some(Crash { vector, error_code, rip, rsp, address: state.sregs.cr2, registers })
    }

    /// The exception's name, such as `page fault`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.vector {
            0 => "divide error",
            1 => "debug exception",
            3 => "breakpoint",
            4 => "overflow",
            6 => "invalid opcode",
            7 => "device not available",
            8 => "double fault",
            10 => "invalid TSS",
            11 => "segment not present",
            12 => "stack fault",
            13 => "general protection fault",
            14 => "page fault",
            16 => "x87 floating-point error",
            17 => "alignment check",
            18 => "machine check",
            19 => "SIMD floating-point exception",
            _ => "exception",
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (vector {}, error code {:#x}) at {:#x}",
            self.name(),
            self.vector,
            self.error_code,
            self.rip
        )?;
        if self.vector == 14 {
            write!(f, ", address {:#x}", self.address)?;
        }
        write!(f, ", rsp {:#x}", self.rsp)?;
        const NAMES: [&str; 15] = [
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        for (index, (name, value)) in NAMES.iter().zip(self.registers).enumerate() {
            let separator = if index % 4 == 0 { "\n  " } else { "  " };
            write!(f, "{separator}{name:>3} {value:016x}")?;
        }
        Ok(())
    }
}
