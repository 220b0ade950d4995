//! In what two states besides RAM differ, by name.

use std::collections::BTreeMap;

use echovisor_machine::MachineState;

/// A register, or a field of a device, that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// Its place in the state, such as `cpu.regs.rax`.
    pub name: String,
    /// What it should be; nothing if it should not be there.
    pub expected: String,
    /// What it is; nothing if it is not there.
    pub found: String,
}

/// The fields in which `found` is not `expected`, in the order of their names. What hardware changes on its own account does
/// not count.
#[must_use]
pub fn field_differences(expected: &MachineState, found: &MachineState) -> Vec<FieldDifference> {
    // Nothing knows all fields by name but the derived Debug, which cannot forget one.
    let (mut expected, found) = (fields(&expected.canonical()), fields(&found.canonical()));
    let mut differences = Vec::new();
    for (name, found) in found {
        let expected = expected.remove(&name).unwrap_or_default();
        if expected != found {
            differences.push(FieldDifference { name, expected, found });
        }
    }
    let missing = expected.into_iter();
    differences.extend(missing.map(|(name, expected)| FieldDifference {
        name,
        expected,
        found: String::new(),
    }));
    differences.sort_by(|one, other| one.name.cmp(&other.name));
    differences
}

/// The leaves of a value's pretty `Debug` form, which has one on each line, by their path.
fn fields(state: &MachineState) -> BTreeMap<String, String> {
    let text = format!("{state:#?}");
    let mut leaves = BTreeMap::new();
    // Of each open bracket: the name of what is in it, and how many nameless things were.
    let mut open: Vec<(Option<String>, usize)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let (bare, opens) = match line.strip_suffix(['{', '[', '(']) {
            Some(bare) => (bare.trim_end(), true),
            None => (line.trim_end_matches(','), false),
        };
        if !opens && bare.starts_with(['}', ']', ')']) {
            open.pop();
            continue;
        }
        let (name, value) = match bare.split_once(": ") {
            Some((name, value)) => (Some(name.to_owned()), value),
            // A list in a field, whose bracket follows the name at once.
            None if opens && bare.ends_with(':') => (Some(bare.trim_end_matches(':').to_owned()), ""),
            // An element of a list has its number; the name of a type says nothing.
            None if !opens || bare.is_empty() => {
                let index = open.last_mut().map_or(0, |(_, count)| std::mem::replace(count, *count + 1));
                (Some(index.to_string()), bare)
            }
            None => (None, bare),
        };
        if opens {
            open.push((name, 0));
        } else {
            let path: Vec<_> =
                open.iter().filter_map(|(name, _)| name.as_deref()).chain(name.as_deref()).collect();
            leaves.insert(path.join("."), readable(value));
        }
    }
    leaves
}

/// Numbers in hexadecimal, as registers are read.
fn readable(value: &str) -> String {
    value.parse::<u64>().map_or_else(|_| value.to_owned(), |number| format!("{number:#x}"))
}
