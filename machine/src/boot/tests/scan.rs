//! What a guest must not contain.

use super::{
    super::{Forbidden, Image, layout::IMAGE_BASE, scan::scan},
    elf_file::{Segment, file},
};

fn scanned(bytes: &[u8], functions: &[u64]) -> Result<(), Forbidden> {
    let text = Segment { address: IMAGE_BASE, bytes: bytes.to_vec(), executable: true };
    let bytes = file(&[text], IMAGE_BASE, functions);
    scan(&Image::parse(&bytes).unwrap().code().unwrap())
}

#[test]
fn every_forbidden_instruction_is_found() {
    for (bytes, name) in [
        (&[0x0f, 0x31][..], "RDTSC"),
        (&[0x0f, 0x01, 0xf9], "RDTSCP"),
        (&[0x0f, 0xc7, 0xf0], "RDRAND"),
        (&[0x48, 0x0f, 0xc7, 0xf8], "RDSEED"),
        (&[0x0f, 0x33], "RDPMC"),
        (&[0xf3, 0x0f, 0xc7, 0xf8], "RDPID"),
        (&[0x0f, 0x01, 0xfd], "RDPRU"),
        (&[0x0f, 0xa2], "CPUID"),
        (&[0x0f, 0x01, 0xd0], "XGETBV"),
        (&[0x0f, 0xae, 0x20], "XSAVE"),
        (&[0x48, 0x0f, 0xae, 0x20], "XSAVE64"),
        (&[0x0f, 0xc7, 0x20], "XSAVEC"),
        (&[0x48, 0x0f, 0xae, 0x30], "XSAVEOPT64"),
        (&[0x48, 0x0f, 0xae, 0x28], "XRSTOR64"),
        (&[0x0f, 0xae, 0x00], "FXSAVE"),
        (&[0x48, 0x0f, 0xae, 0x00], "FXSAVE64"),
        (&[0xd9, 0x30], "FNSTENV"),
        (&[0xdd, 0x30], "FNSAVE"),
        (&[0x0f, 0x05], "SYSCALL"),
        (&[0x0f, 0x34], "SYSENTER"),
        (&[0x0f, 0x01, 0xc1], "VMCALL"),
        (&[0x0f, 0x01, 0xd9], "VMMCALL"),
        (&[0x0f, 0x01, 0x00], "SGDT"),
        (&[0x0f, 0x01, 0x08], "SIDT"),
        (&[0x0f, 0x00, 0xc0], "SLDT"),
        (&[0x0f, 0x00, 0xc8], "STR"),
        (&[0x0f, 0x01, 0xe0], "SMSW"),
        (&[0x0f, 0x03, 0xc1], "LSL"),
        (&[0x0f, 0x01, 0xee], "RDPKRU"),
        (&[0xc7, 0xf8, 0, 0, 0, 0], "XBEGIN"),
        (&[0xf2, 0x0f, 0xae, 0xf1], "UMWAIT"),
        // VEX and EVEX: vzeroupper, vpaddd zmm.
        (&[0xc5, 0xf8, 0x77], "VZEROUPPER"),
        (&[0x62, 0xf1, 0x7d, 0x48, 0xfe, 0xc0], "VPADDD"),
    ] {
        // Between harmless instructions, and behind a prefix that changes nothing.
        for prefix in [&[][..], &[0x2e]] {
            let found = scanned(&[&[0x90, 0x90][..], prefix, bytes, &[0xc3]].concat(), &[]).unwrap_err();
            assert_eq!(found.address, IMAGE_BASE + 2, "{name}");
            assert_eq!(found.instruction, name);
        }
    }
}

#[test]
fn what_a_compiler_makes_for_this_machine_is_allowed() {
    // push rbp; mov rbp, rsp; addsd xmm0, xmm1; popcnt eax, ecx; lock cmpxchg [rdi], ecx; pause; lfence; ret
    let code = [
        0x55, 0x48, 0x89, 0xe5, 0xf2, 0x0f, 0x58, 0xc1, 0xf3, 0x0f, 0xb8, 0xc1, 0xf0, 0x0f, 0xb1, 0x0f, 0xf3,
        0x90, 0x0f, 0xae, 0xe8, 0xc3,
    ];
    scanned(&code, &[]).unwrap();
}

/// The same bytes within another instruction are a number: `mov eax, 0x0000310f`.
#[test]
fn an_operand_is_no_instruction() {
    scanned(&[0xb8, 0x0f, 0x31, 0, 0, 0xc3], &[]).unwrap();
}

#[test]
fn data_before_a_function_does_not_hide_what_it_does() {
    // The first byte looks like the start of `mov rax, imm64`, which would swallow the function behind it.
    let code = [0x48, 0xb8, 0x0f, 0x31, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];
    scanned(&code, &[IMAGE_BASE]).unwrap();
    let found = scanned(&code, &[IMAGE_BASE, IMAGE_BASE + 2]).unwrap_err();
    assert_eq!((found.address, found.instruction.as_str()), (IMAGE_BASE + 2, "RDTSC"));
}
