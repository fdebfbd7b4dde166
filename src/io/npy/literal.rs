//! The Python literal in a `.npy` header: one dictionary of a string, a bool and a tuple of integers. Values that
//! nest are refused at their first byte, so there is no recursion and no depth to exhaust.

use super::{Fault, MAX_RANK};

/// The three entries that the format defines.
pub(super) struct Entries<'a> {
    pub(super) descr: &'a str,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
}

/// Parses `bytes` from position `at` to their end.
pub(super) fn parse(bytes: &[u8], at: usize) -> Result<Entries<'_>, Fault> {
    let mut cursor = Cursor { bytes, at };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    cursor.take(b'{', "a dictionary ('{')")?;
    while !cursor.accept(b'}') {
        let key = cursor.string("a key")?;
        cursor.take(b':', "':' after a key")?;
        let repeated = match key {
            "descr" => descr.replace(cursor.descr()?).is_some(),
            "fortran_order" => fortran_order.replace(cursor.boolean()?).is_some(),
            "shape" => shape.replace(cursor.shape()?).is_some(),
            _ => return Err(Fault::new("the keys 'descr', 'fortran_order' and 'shape'", format!("'{}'", brief(key)))),
        };
        if repeated {
            return Err(Fault::new("every key once", format!("'{key}' twice")));
        }
        if !cursor.accept(b',') {
            cursor.take(b'}', "',' or '}' after a value")?;
            break;
        }
    }
    cursor.skip_space();
    if cursor.at < bytes.len() {
        return Err(cursor.unexpected("nothing but spaces after the dictionary"));
    }
    let missing = |key: &str| Fault::new("the keys 'descr', 'fortran_order' and 'shape'", format!("no '{key}'"));
    Ok(Entries {
        descr: descr.ok_or_else(|| missing("descr"))?,
        fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips spaces, then consumes `byte` if it is next.
    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn take(&mut self, byte: u8, expected: &str) -> Result<(), Fault> {
        if self.accept(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let got = match self.peek() {
            None => "the end of the header".into(),
            Some(byte @ b' '..=b'~') => format!("'{}' at byte {} of the header", byte as char, self.at),
            Some(byte) => format!("0x{byte:02x} at byte {} of the header", self.at),
        };
        Fault::new(format!("a .npy header with {expected}"), got)
    }

    /// Printable ASCII in quotes. Backslashes are refused: no key and no plain dtype has one.
    fn string(&mut self, what: &str) -> Result<&'a str, Fault> {
        self.skip_space();
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return Err(self.unexpected(&format!("{what} in quotes")));
        };
        let start = self.at + 1;
        self.at = start;
        while matches!(self.peek(), Some(byte @ b' '..=b'~') if byte != quote && byte != b'\\') {
            self.at += 1;
        }
        if self.peek() != Some(quote) {
            return Err(self.unexpected(&format!("{what} of printable ASCII in quotes")));
        }
        let text = &self.bytes[start..self.at];
        self.at += 1;
        // ASCII by the loop above, so the empty default is never used.
        Ok(std::str::from_utf8(text).unwrap_or_default())
    }

    fn descr(&mut self) -> Result<&'a str, Fault> {
        self.skip_space();
        if matches!(self.peek(), Some(b'[' | b'(' | b'{')) {
            return Err(Fault::new(
                "one number per element (structured arrays are not read: save one field, as in np.save(file, a['field']))",
                "a structured dtype",
            ));
        }
        self.string("a dtype")
    }

    fn boolean(&mut self) -> Result<bool, Fault> {
        self.skip_space();
        for (word, value) in [("True", true), ("False", false)] {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False for 'fortran_order'"))
    }

    fn shape(&mut self) -> Result<Vec<usize>, Fault> {
        self.take(b'(', "a tuple '(…)' for 'shape'")?;
        let mut shape = Vec::new();
        while !self.accept(b')') {
            if shape.len() == MAX_RANK {
                return Err(Fault::new(format!("at most {MAX_RANK} axes"), "more in 'shape'"));
            }
            shape.push(self.length()?);
            if !self.accept(b',') {
                // Python reads (5) as a number; only (5,) is a tuple.
                let closing =
                    if shape.len() == 1 { "',' after the only length of 'shape'" } else { "',' or ')' in 'shape'" };
                if shape.len() == 1 || !self.accept(b')') {
                    return Err(self.unexpected(closing));
                }
                break;
            }
        }
        Ok(shape)
    }

    fn length(&mut self) -> Result<usize, Fault> {
        self.skip_space();
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let digits = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        if self.at == digits || (self.bytes[digits] == b'0' && self.at - digits > 1) {
            self.at = start;
            return Err(self.unexpected("decimal lengths in 'shape'"));
        }
        if negative {
            return Err(Fault::new("lengths of 0 or more in 'shape'", brief(text)));
        }
        // Python 2 wrote long integers with this suffix.
        self.at += usize::from(self.peek() == Some(b'L'));
        text.parse().map_err(|_| Fault::new("lengths that this machine can address in 'shape'", brief(text)))
    }
}

/// At most 40 characters of `text` (which is ASCII), for messages.
pub(super) fn brief(text: &str) -> String {
    match text.get(..40) {
        Some(start) if text.len() > 40 => format!("{start}…"),
        _ => text.into(),
    }
}
