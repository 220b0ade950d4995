//! The state of a KVM vCPU, as plain data.
//!
//! KVM's own structures carry padding and reserved fields, and they are not ours to serialise; these mirror what belongs
//! to the guest. The time stamp counter is left out on purpose: it is not state that a replay could have.

use kvm_bindings as kvm;
use rkyv::{Archive, Deserialize, Serialize};

/// Declares a plain copy of a KVM structure with the fields named, and the conversions both ways. Fields that are not
/// named are zero on the way to KVM.
macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident = $kvm:ty { $($field:ident: $type:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the fields are those of the structure of the same name in KVM's API")]
        pub struct $name { $(pub $field: $type),+ }

        impl From<$kvm> for $name {
            fn from(kvm: $kvm) -> $name {
                $name { $($field: kvm.$field.into()),+ }
            }
        }

        impl From<$name> for $kvm {
            fn from(ours: $name) -> $kvm {
                let mut kvm = <$kvm>::default();
                $(kvm.$field = ours.$field.into();)+
                kvm
            }
        }
    };
}

mirror!(
    /// General-purpose registers (`struct kvm_regs`).
    Regs = kvm::kvm_regs {
        rax: u64, rbx: u64, rcx: u64, rdx: u64, rsi: u64, rdi: u64, rsp: u64, rbp: u64,
        r8: u64, r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64,
        rip: u64, rflags: u64,
    }
);

mirror!(
    /// A segment register with its hidden part (`struct kvm_segment`).
    Segment = kvm::kvm_segment {
        base: u64, limit: u32, selector: u16, type_: u8, present: u8, dpl: u8, db: u8, s: u8, l: u8, g: u8, avl: u8,
        unusable: u8,
    }
);

mirror!(
    /// GDTR or IDTR (`struct kvm_dtable`).
    Table = kvm::kvm_dtable { base: u64, limit: u16 }
);

mirror!(
    /// Segment, table and control registers (`struct kvm_sregs`).
    Sregs = kvm::kvm_sregs {
        cs: Segment, ds: Segment, es: Segment, fs: Segment, gs: Segment, ss: Segment, tr: Segment, ldt: Segment,
        gdt: Table, idt: Table,
        cr0: u64, cr2: u64, cr3: u64, cr4: u64, cr8: u64, efer: u64, apic_base: u64, interrupt_bitmap: [u64; 4],
    }
);

/// x87, MMX and SSE registers: what FXSAVE stores (Intel SDM vol. 1, 10.5.1).
///
/// They travel in the legacy area of `struct kvm_xsave`. `struct kvm_fpu` will not do: KVM fills in and takes no MXCSR there,
/// and does not mark as in use what it takes, so that a fresh vCPU is entered with initial values.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of `struct kvm_fpu` in KVM's API")]
pub struct Fpu {
    pub fpr: [[u8; 16]; 8],
    pub fcw: u16,
    pub fsw: u16,
    pub ftwx: u8,
    pub last_opcode: u16,
    pub last_ip: u64,
    pub last_dp: u64,
    pub xmm: [[u8; 16]; 16],
    pub mxcsr: u32,
}

/// Where the legacy area has MXCSR, the x87 and the SSE registers, and where XSTATE_BV stands behind it, which says what is
/// in use; in words of 32 bits.
const MXCSR: usize = 24 / 4;
const FPR: usize = 32 / 4;
const XMM: usize = 160 / 4;
const XSTATE_BV: usize = 512 / 4;
const X87_AND_SSE: u32 = 0b11;

impl From<&kvm::kvm_xsave> for Fpu {
    fn from(kvm: &kvm::kvm_xsave) -> Fpu {
        let words = &kvm.region;
        let long = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let register = |at: usize| (u128::from(long(at)) | u128::from(long(at + 2)) << 64).to_le_bytes();
        Fpu {
            fpr: std::array::from_fn(|index| register(FPR + 4 * index)),
            fcw: words[0] as u16,
            fsw: (words[0] >> 16) as u16,
            ftwx: words[1] as u8,
            last_opcode: (words[1] >> 16) as u16,
            last_ip: long(2),
            last_dp: long(4),
            xmm: std::array::from_fn(|index| register(XMM + 4 * index)),
            mxcsr: words[MXCSR],
        }
    }
}

impl From<&Fpu> for kvm::kvm_xsave {
    fn from(ours: &Fpu) -> kvm::kvm_xsave {
        let mut kvm = kvm::kvm_xsave::default();
        let words = &mut kvm.region;
        words[0] = u32::from(ours.fcw) | u32::from(ours.fsw) << 16;
        words[1] = u32::from(ours.ftwx) | u32::from(ours.last_opcode) << 16;
        for (at, value) in [(2, ours.last_ip), (4, ours.last_dp)] {
            (words[at], words[at + 1]) = (value as u32, (value >> 32) as u32);
        }
        words[MXCSR] = ours.mxcsr;
        for (at, registers) in [(FPR, &ours.fpr[..]), (XMM, &ours.xmm[..])] {
            let (parts, _) = registers.as_flattened().as_chunks();
            for (word, part) in words[at..].iter_mut().zip(parts) {
                *word = u32::from_le_bytes(*part);
            }
        }
        words[XSTATE_BV] = X87_AND_SSE;
        kvm
    }
}

mirror!(
    /// Debug registers (`struct kvm_debugregs`).
    DebugRegs = kvm::kvm_debugregs { db: [u64; 4], dr6: u64, dr7: u64 }
);

mirror!(
    /// An exception that is being delivered.
    Exception = kvm::kvm_vcpu_events__bindgen_ty_1 {
        injected: u8, nr: u8, has_error_code: u8, pending: u8, error_code: u32,
    }
);

mirror!(
    /// An interrupt that is being delivered, and the shadow of STI or MOV SS.
    Interrupt = kvm::kvm_vcpu_events__bindgen_ty_2 { injected: u8, nr: u8, soft: u8, shadow: u8 }
);

mirror!(
    /// Non-maskable interrupts.
    Nmi = kvm::kvm_vcpu_events__bindgen_ty_3 { injected: u8, pending: u8, masked: u8 }
);

mirror!(
    /// Exceptions and interrupts in flight (`struct kvm_vcpu_events`). The machine has no SMM.
    Events = kvm::kvm_vcpu_events {
        exception: Exception, interrupt: Interrupt, nmi: Nmi, sipi_vector: u32, flags: u32,
        exception_has_payload: u8, exception_payload: u64,
    }
);

/// A model-specific register and its value.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msr {
    /// Its index.
    pub index: u32,
    /// What it holds.
    pub value: u64,
}

/// The whole state of a KVM vCPU at a boundary.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct KvmState {
    /// General-purpose registers.
    pub regs: Regs,
    /// Segment, table and control registers.
    pub sregs: Sregs,
    /// x87, MMX and SSE registers.
    pub fpu: Fpu,
    /// Debug registers.
    pub debug: DebugRegs,
    /// XCR0; the only extended control register.
    pub xcr0: u64,
    /// The registers of [`super::msr::STATE`], in that order.
    pub msrs: Vec<Msr>,
    /// Runnable or halted (`KVM_MP_STATE_*`).
    pub mp_state: u32,
    /// Exceptions and interrupts in flight.
    pub events: Events,
}

impl KvmState {
    /// The state with everything cleared that is not the guest's doing: the x87 pointers to the last instruction and
    /// operand, which some processors clear and others keep when they save and restore; and what KVM remembers of an
    /// exception or interrupt that it has delivered, but only if a page fault of the host came in between.
    #[must_use]
    pub fn canonical(&self) -> KvmState {
        let mut state = self.clone();
        state.fpu.last_opcode = 0;
        state.fpu.last_ip = 0;
        state.fpu.last_dp = 0;
        let events = &mut state.events;
        if (events.exception.injected, events.exception.pending) == (0, 0) {
            events.exception = Exception::default();
            (events.exception_has_payload, events.exception_payload) = (0, 0);
        }
        if events.interrupt.injected == 0 {
            events.interrupt = Interrupt { shadow: events.interrupt.shadow, ..Default::default() };
        }
        state
    }
}
