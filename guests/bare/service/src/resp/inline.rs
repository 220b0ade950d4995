//! Inline commands: a line of words, as a person types them.

/// A quote is not closed, or something follows a closing quote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

/// Splits a line into words, with the quotes and escapes of redis, and tells where each begins and ends.
///
/// Words are unescaped in place; they never grow, so each is written where it, or what was before it, has been read.
pub(super) fn split(line: &mut [u8], mut word: impl FnMut(usize, usize)) -> Result<(), UnbalancedQuotes> {
    let mut read = 0;
    let mut write = 0;
    loop {
        while line.get(read).is_some_and(u8::is_ascii_whitespace) {
            read += 1;
        }
        if read == line.len() {
            return Ok(());
        }
        let start = write;
        while let Some(&byte) = line.get(read).filter(|byte| !byte.is_ascii_whitespace()) {
            read += 1;
            match byte {
                quote @ (b'"' | b'\'') => unquote(line, quote, &mut read, &mut write)?,
                _ => put(line, &mut write, byte),
            }
        }
        word(start, write);
    }
}

/// Copies what stands in quotes; `read` is behind the opening quote before and behind the closing one after.
fn unquote(line: &mut [u8], quote: u8, read: &mut usize, write: &mut usize) -> Result<(), UnbalancedQuotes> {
    loop {
        let byte = *line.get(*read).ok_or(UnbalancedQuotes)?;
        *read += 1;
        if byte == quote {
            // The word ends here, or the quotes do not pair up as their writer thought.
            let ends = line.get(*read).is_none_or(u8::is_ascii_whitespace);
            return if ends { Ok(()) } else { Err(UnbalancedQuotes) };
        }
        let byte = match byte {
            b'\\' if quote == b'"' => escape(line, read)?,
            b'\\' if line.get(*read) == Some(&b'\'') => {
                *read += 1;
                b'\''
            }
            _ => byte,
        };
        put(line, write, byte);
    }
}

/// The byte that an escape sequence in double quotes stands for; `read` is behind the backslash.
fn escape(line: &[u8], read: &mut usize) -> Result<u8, UnbalancedQuotes> {
    if let [b'x', high, low, ..] = line[*read..]
        && let (Some(high), Some(low)) = (digit(high), digit(low))
    {
        *read += 3;
        return Ok(high << 4 | low);
    }
    let byte = *line.get(*read).ok_or(UnbalancedQuotes)?;
    *read += 1;
    Ok(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        _ => byte,
    })
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Writes a byte of a word.
fn put(line: &mut [u8], write: &mut usize, byte: u8) {
    line[*write] = byte;
    *write += 1;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{UnbalancedQuotes, split};
    use std::vec::Vec;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        let mut line = line.to_vec();
        let mut ranges = Vec::new();
        split(&mut line, |start, end| ranges.push(start..end))?;
        Ok(ranges.into_iter().map(|range| line[range].to_vec()).collect())
    }

    #[test]
    fn words_are_split_at_blanks() {
        assert_eq!(words(b"  SET a\tb "), Ok(std::vec![b"SET".to_vec(), b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(words(b"   "), Ok(Vec::new()));
    }

    #[test]
    fn quotes_and_escapes_are_those_of_redis() {
        assert_eq!(words(br#""a b" 'c d'"#), Ok(std::vec![b"a b".to_vec(), b"c d".to_vec()]));
        assert_eq!(
            words(br#""\x41\n\"\q" 'it\'s\n'"#),
            Ok(std::vec![b"A\n\"q".to_vec(), br"it's\n".to_vec()])
        );
        assert_eq!(words(br#""" x"y z""#), Ok(std::vec![b"".to_vec(), b"xy z".to_vec()]));
        assert_eq!(words(br#""\xzz""#), Ok(std::vec![b"xzz".to_vec()]));
    }

    #[test]
    fn quotes_must_pair_up() {
        for line in [&br#"""#[..], br#"'a"#, br#""a"b"#, br#""a\"#] {
            assert_eq!(words(line), Err(UnbalancedQuotes));
        }
    }
}
