//! The instructions of the scripted processor.
//!
//! Each takes 16 bytes: the opcode, three operand bytes `a`, `b`, `c`, four zeros, and an immediate of 8 bytes, least
//! significant first.

/// Length of an instruction, bytes.
pub(super) const LENGTH: usize = 16;

/// One of the sixteen registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// How many registers there are.
pub(super) const REGISTERS: usize = 16;

impl Register {
    /// The register with this number.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub const fn new(number: u8) -> Register {
        assert!((number as usize) < REGISTERS);
        Register(number)
    }

    fn decode(number: u8) -> Option<Register> {
        (usize::from(number) < REGISTERS).then_some(Register(number))
    }

    pub(super) fn index(self) -> usize {
        self.0.into()
    }
}

/// How many bytes an access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// One.
    Byte = 1,
    /// Two.
    Word = 2,
    /// Four.
    Double = 4,
    /// Eight; not for ports.
    Quad = 8,
}

impl Width {
    fn decode(bytes: u8) -> Option<Width> {
        [Width::Byte, Width::Word, Width::Double, Width::Quad].into_iter().find(|width| *width as u8 == bytes)
    }

    fn decode_port(bytes: u8) -> Option<Width> {
        Width::decode(bytes).filter(|width| *width != Width::Quad)
    }

    pub(super) fn bytes(self) -> usize {
        self as usize
    }
}

/// What two numbers become. All wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// The second.
    Move,
    /// Their sum.
    Add,
    /// The first minus the second.
    Subtract,
    /// Their product.
    Multiply,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// The first, shifted left by the second modulo 64.
    ShiftLeft,
    /// The first, shifted right by the second modulo 64.
    ShiftRight,
}

impl Operation {
    const ALL: [Operation; 9] = [
        Operation::Move,
        Operation::Add,
        Operation::Subtract,
        Operation::Multiply,
        Operation::And,
        Operation::Or,
        Operation::Xor,
        Operation::ShiftLeft,
        Operation::ShiftRight,
    ];

    pub(super) fn apply(self, first: u64, second: u64) -> u64 {
        match self {
            Operation::Move => second,
            Operation::Add => first.wrapping_add(second),
            Operation::Subtract => first.wrapping_sub(second),
            Operation::Multiply => first.wrapping_mul(second),
            Operation::And => first & second,
            Operation::Or => first | second,
            Operation::Xor => first ^ second,
            Operation::ShiftLeft => first.wrapping_shl(second as u32),
            Operation::ShiftRight => first.wrapping_shr(second as u32),
        }
    }
}

/// When a branch is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// Always.
    Always,
    /// The registers are equal.
    Equal,
    /// They are not.
    NotEqual,
    /// The first is less, both without sign.
    Below,
}

impl Condition {
    const ALL: [Condition; 4] = [Condition::Always, Condition::Equal, Condition::NotEqual, Condition::Below];

    pub(super) fn holds(self, first: u64, second: u64) -> bool {
        match self {
            Condition::Always => true,
            Condition::Equal => first == second,
            Condition::NotEqual => first != second,
            Condition::Below => first < second,
        }
    }
}

/// An instruction. Addresses are a register plus an offset; where there is no RAM, an access is MMIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `to = to operation from`.
    Compute {
        /// What is computed.
        operation: Operation,
        /// First number and result.
        to: Register,
        /// Second number.
        from: Register,
    },
    /// `to = to operation value`.
    ComputeImmediate {
        /// What is computed.
        operation: Operation,
        /// First number and result.
        to: Register,
        /// Second number.
        value: u64,
    },
    /// `to = memory[base + offset]`, extended by zeros.
    Load {
        /// The register.
        to: Register,
        /// Register with the address.
        base: Register,
        /// Added to it.
        offset: u64,
        /// How much.
        width: Width,
    },
    /// `memory[base + offset] = from`.
    Store {
        /// The register.
        from: Register,
        /// Register with the address.
        base: Register,
        /// Added to it.
        offset: u64,
        /// How much.
        width: Width,
    },
    /// `memory[to] = memory[from]`. If both are MMIO the instruction has two exits.
    Copy {
        /// Register with the destination.
        to: Register,
        /// Register with the source.
        from: Register,
        /// How much.
        width: Width,
    },
    /// Goes on at `target` if the condition holds.
    Branch {
        /// When.
        condition: Condition,
        /// First register.
        first: Register,
        /// Second register.
        second: Register,
        /// Where.
        target: u64,
    },
    /// `to = port`, extended by zeros.
    In {
        /// The register.
        to: Register,
        /// The port.
        port: u16,
        /// How much; not [`Width::Quad`].
        width: Width,
    },
    /// `port = from`.
    Out {
        /// The register.
        from: Register,
        /// The port.
        port: u16,
        /// How much; not [`Width::Quad`].
        width: Width,
    },
    /// An exit that nobody serves. So that a processor that ran astray stops, this is what zeros mean.
    Halt,
}

impl Instruction {
    /// As it stands in memory.
    #[must_use]
    pub fn encode(self) -> [u8; LENGTH] {
        let (opcode, a, b, c, immediate) = match self {
            Instruction::Halt => (0, 0, 0, 0, 0),
            Instruction::Compute { operation, to, from } => (1, operation as u8, to.0, from.0, 0),
            Instruction::ComputeImmediate { operation, to, value } => (2, operation as u8, to.0, 0, value),
            Instruction::Load { to, base, offset, width } => (3, to.0, base.0, width as u8, offset),
            Instruction::Store { from, base, offset, width } => (4, from.0, base.0, width as u8, offset),
            Instruction::Copy { to, from, width } => (5, to.0, from.0, width as u8, 0),
            Instruction::Branch { condition, first, second, target } => {
                (6, condition as u8, first.0, second.0, target)
            }
            Instruction::In { to, port, width } => (7, to.0, 0, width as u8, port.into()),
            Instruction::Out { from, port, width } => (8, from.0, 0, width as u8, port.into()),
        };
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&[opcode, a, b, c]);
        bytes[8..].copy_from_slice(&immediate.to_le_bytes());
        bytes
    }

    /// What stands in memory; `None` if that is no instruction.
    #[must_use]
    pub fn decode(bytes: &[u8; LENGTH]) -> Option<Instruction> {
        let [opcode, a, b, c, _, _, _, _, immediate @ ..] = *bytes;
        let immediate = u64::from_le_bytes(immediate);
        let operation = || Operation::ALL.get(usize::from(a)).copied();
        Some(match opcode {
            0 => Instruction::Halt,
            1 => Instruction::Compute {
                operation: operation()?,
                to: Register::decode(b)?,
                from: Register::decode(c)?,
            },
            2 => Instruction::ComputeImmediate {
                operation: operation()?,
                to: Register::decode(b)?,
                value: immediate,
            },
            3 => Instruction::Load {
                to: Register::decode(a)?,
                base: Register::decode(b)?,
                offset: immediate,
                width: Width::decode(c)?,
            },
            4 => Instruction::Store {
                from: Register::decode(a)?,
                base: Register::decode(b)?,
                offset: immediate,
                width: Width::decode(c)?,
            },
            5 => Instruction::Copy {
                to: Register::decode(a)?,
                from: Register::decode(b)?,
                width: Width::decode(c)?,
            },
            6 => Instruction::Branch {
                condition: *Condition::ALL.get(usize::from(a))?,
                first: Register::decode(b)?,
                second: Register::decode(c)?,
                target: immediate,
            },
            7 => Instruction::In {
                to: Register::decode(a)?,
                port: u16::try_from(immediate).ok()?,
                width: Width::decode_port(c)?,
            },
            8 => Instruction::Out {
                from: Register::decode(a)?,
                port: u16::try_from(immediate).ok()?,
                width: Width::decode_port(c)?,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let [first, second] = [Register::new(3), Register::new(15)];
        let mut instructions = vec![Instruction::Halt];
        for operation in Operation::ALL {
            instructions.push(Instruction::Compute { operation, to: first, from: second });
            instructions.push(Instruction::ComputeImmediate { operation, to: second, value: u64::MAX - 1 });
        }
        for condition in Condition::ALL {
            instructions.push(Instruction::Branch { condition, first, second, target: 0x20_0010 });
        }
        for width in [Width::Byte, Width::Word, Width::Double, Width::Quad] {
            instructions.push(Instruction::Load { to: first, base: second, offset: 1 << 40, width });
            instructions.push(Instruction::Store { from: first, base: second, offset: 8, width });
            instructions.push(Instruction::Copy { to: first, from: second, width });
        }
        for width in [Width::Byte, Width::Word, Width::Double] {
            instructions.push(Instruction::In { to: first, port: 0xffff, width });
            instructions.push(Instruction::Out { from: first, port: 0x3f8, width });
        }
        for instruction in instructions {
            assert_eq!(Instruction::decode(&instruction.encode()), Some(instruction));
        }
    }

    #[test]
    fn nonsense_is_no_instruction() {
        let with = |at: usize, value: u8| {
            let mut bytes = Instruction::In { to: Register::new(1), port: 1, width: Width::Byte }.encode();
            bytes[at] = value;
            Instruction::decode(&bytes)
        };
        assert_eq!(with(0, 9), None, "opcode");
        assert_eq!(with(1, 16), None, "register");
        assert_eq!(with(3, 8), None, "width");
        assert_eq!(with(3, 3), None, "width");
        assert_eq!(with(10, 1), None, "port");
    }
}
