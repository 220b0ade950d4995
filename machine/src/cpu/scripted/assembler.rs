//! Writing programs for the scripted processor.

use vm_memory::{Bytes as _, GuestAddress};

use super::instruction::{Condition, Instruction, LENGTH, Operation, Register, Width};
use crate::memory::Memory;

/// A program and the address it is made for, at which it also starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    base: u64,
    code: Vec<u8>,
}

impl Program {
    /// Address of its first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.base
    }

    /// Puts it into memory.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn load(&self, memory: &Memory) {
        memory.mmap().write_slice(&self.code, GuestAddress(self.base)).expect("the program fits into memory");
    }
}

/// A place in a program, to which branches may go before it is known where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Writes a program, instruction by instruction.
#[derive(Debug)]
pub struct Assembler {
    base: u64,
    code: Vec<Instruction>,
    /// Where each label stands, in instructions.
    labels: Vec<Option<usize>>,
    /// The branches, whose targets are still numbers of labels.
    branches: Vec<usize>,
}

impl Assembler {
    /// An empty program for address `base`.
    #[must_use]
    pub fn new(base: u64) -> Assembler {
        Assembler { base, code: Vec::new(), labels: Vec::new(), branches: Vec::new() }
    }

    /// A label that stands nowhere yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// A label before the next instruction.
    pub fn here(&mut self) -> Label {
        let label = self.label();
        self.place(label);
        label
    }

    /// `to = value`.
    pub fn set(&mut self, to: Register, value: u64) {
        self.compute_immediate(Operation::Move, to, value);
    }

    /// `to = from`.
    pub fn copy_register(&mut self, to: Register, from: Register) {
        self.compute(Operation::Move, to, from);
    }

    /// `to = to operation from`.
    pub fn compute(&mut self, operation: Operation, to: Register, from: Register) {
        self.code.push(Instruction::Compute { operation, to, from });
    }

    /// `to = to operation value`.
    pub fn compute_immediate(&mut self, operation: Operation, to: Register, value: u64) {
        self.code.push(Instruction::ComputeImmediate { operation, to, value });
    }

    /// `to = to + value`.
    pub fn add(&mut self, to: Register, value: u64) {
        self.compute_immediate(Operation::Add, to, value);
    }

    /// `to = memory[base + offset]`.
    pub fn load(&mut self, width: Width, to: Register, base: Register, offset: u64) {
        self.code.push(Instruction::Load { to, base, offset, width });
    }

    /// `memory[base + offset] = from`.
    pub fn store(&mut self, width: Width, from: Register, base: Register, offset: u64) {
        self.code.push(Instruction::Store { from, base, offset, width });
    }

    /// `memory[to] = memory[from]`.
    pub fn copy(&mut self, width: Width, to: Register, from: Register) {
        self.code.push(Instruction::Copy { to, from, width });
    }

    /// `to = port`.
    pub fn input(&mut self, width: Width, to: Register, port: u16) {
        self.code.push(Instruction::In { to, port, width });
    }

    /// `port = from`.
    pub fn output(&mut self, width: Width, from: Register, port: u16) {
        self.code.push(Instruction::Out { from, port, width });
    }

    /// Goes on at `target` if the condition holds for both registers.
    pub fn branch(&mut self, condition: Condition, first: Register, second: Register, target: Label) {
        self.branches.push(self.code.len());
        let target = target.0 as u64;
        self.code.push(Instruction::Branch { condition, first, second, target });
    }

    /// Goes on at `target`.
    pub fn jump(&mut self, target: Label) {
        let any = Register::new(0);
        self.branch(Condition::Always, any, any, target);
    }

    /// Stops for a reason that nobody serves.
    pub fn halt(&mut self) {
        self.code.push(Instruction::Halt);
    }

    /// The program.
    ///
    /// # Panics
    /// If a branch goes to a label that was never placed.
    #[must_use]
    pub fn finish(mut self) -> Program {
        for at in self.branches {
            if let Instruction::Branch { target, .. } = &mut self.code[at] {
                let place = self.labels[*target as usize].expect("every label is placed");
                *target = self.base + (place * LENGTH) as u64;
            }
        }
        Program { base: self.base, code: self.code.into_iter().flat_map(Instruction::encode).collect() }
    }
}
