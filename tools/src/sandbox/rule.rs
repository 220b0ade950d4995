//! Lists of calls, as filters.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::Sysno;

/// A call, and what its arguments must be. Of several rules for one call one must hold.
pub(super) struct Rule {
    call: Sysno,
    /// All of these must hold.
    conditions: Vec<Condition>,
}

/// An argument, counted from 0, that under this mask must have this value. 32 bits of it: no flag or request has more.
struct Condition {
    argument: u8,
    mask: u32,
    value: u32,
}

impl Rule {
    /// The call, with whatever arguments.
    pub(super) fn any(call: Sysno) -> Rule {
        Rule { call, conditions: Vec::new() }
    }

    /// The call, if its argument has this value.
    pub(super) fn with(call: Sysno, argument: u8, value: u32) -> Rule {
        Rule::masked(call, argument, u32::MAX, value)
    }

    /// The call, if its argument has this value under this mask.
    pub(super) fn masked(call: Sysno, argument: u8, mask: u32, value: u32) -> Rule {
        Rule { call, conditions: vec![Condition { argument, mask, value }] }
    }

    /// And if this argument has this value under this mask.
    pub(super) fn and(mut self, argument: u8, mask: u32, value: u32) -> Rule {
        self.conditions.push(Condition { argument, mask, value });
        self
    }
}

/// A filter that does `listed` with the calls on the list and `other` with all others.
pub(super) fn compile(
    rules: &[Rule],
    other: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, Error> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Rule { call, conditions } in rules {
        let alternatives = calls.entry(i64::from(call.id())).or_default();
        if conditions.is_empty() {
            continue;
        }
        let conditions = conditions.iter().map(|Condition { argument, mask, value }| {
            let operation = SeccompCmpOp::MaskedEq(u64::from(*mask));
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operation, u64::from(*value))
        });
        let conditions = conditions.collect::<Result<_, _>>().map_err(Error::Backend)?;
        alternatives.push(SeccompRule::new(conditions).map_err(Error::Backend)?);
    }
    let filter = SeccompFilter::new(calls, other, listed, TargetArch::x86_64);
    filter.and_then(BpfProgram::try_from).map_err(Error::Backend)
}
