//! Finding instructions whose results no log holds.
//!
//! Not every host can make these trap in ring 3, so a bare guest must not contain them. This finds mistakes, not malice:
//! code that jumps into the middle of an instruction is not seen, and what it does is caught by trail and digest.

use iced_x86::{Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic};

/// An instruction that a bare guest must not contain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guest contains {instruction} at {address:#x}, whose result differs from run to run or from host to host"
)]
pub struct Forbidden {
    /// Its name.
    pub instruction: String,
    /// Where it is.
    pub address: u64,
}

/// Disassembles each stretch of code; an error names the first forbidden instruction.
pub(super) fn scan(code: &[(u64, &[u8])]) -> Result<(), Forbidden> {
    let mut instruction = Instruction::default();
    for (address, bytes) in code {
        let mut decoder = Decoder::with_ip(64, bytes, *address, DecoderOptions::NONE);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if is_forbidden(&instruction) {
                let name = format!("{:?}", instruction.mnemonic()).to_uppercase();
                return Err(Forbidden { instruction: name, address: instruction.ip() });
            }
        }
    }
    Ok(())
}

fn is_forbidden(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Cpuid, Fnsave, Fnstenv, Fsave, Fstenv, Fxsave, Fxsave64, Lar, Lsl, Rdpid, Rdpkru, Rdpmc, Rdpru,
        Rdrand, Rdseed, Rdtsc, Rdtscp, Sgdt, Sidt, Sldt, Smsw, Str, Syscall, Sysenter, Tpause, Umwait, Verr,
        Verw, Vmcall, Vmmcall, Xbegin, Xgetbv, Xrstor, Xrstor64, Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt,
        Xsaveopt64,
    };
    let mnemonic = instruction.mnemonic();
    // Time, chance, and whether another thread was in the way.
    let nondeterministic =
        matches!(mnemonic, Rdtsc | Rdtscp | Rdrand | Rdseed | Rdpmc | Rdpru | Tpause | Umwait | Xbegin);
    // Where ring 3 runs natively these show the host's registers and tables instead of the guest's.
    let host = matches!(mnemonic, Cpuid | Rdpid | Rdpkru | Xgetbv)
        || matches!(mnemonic, Sgdt | Sidt | Sldt | Str | Smsw | Lar | Lsl | Verr | Verw);
    // What they save and restore goes beyond the state that the machine knows.
    let extended =
        matches!(mnemonic, Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64);
    // What x87 remembers of its last instruction depends on whether the host switched to another task since.
    let last_instruction = matches!(mnemonic, Fnsave | Fsave | Fnstenv | Fstenv | Fxsave | Fxsave64);
    // These lead to ring 0 or to the hypervisor, and there is nobody.
    let leaves = matches!(mnemonic, Syscall | Sysenter | Vmcall | Vmmcall);
    // AVX state is neither saved nor compared; most hosts would raise #UD, but not all.
    let vector = instruction.encoding() != EncodingKind::Legacy;
    nondeterministic || host || extended || last_instruction || leaves || vector
}
