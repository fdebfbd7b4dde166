//! Reads and writes at a position: no shared cursor, so threads can share a file.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};

#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;

/// Fills `buf` from `offset` on; a file that ends earlier is an error.
pub(in crate::io) fn read_exact(file: &File, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
    while !buf.is_empty() {
        #[cfg(unix)]
        let read = file.read_at(buf, offset);
        #[cfg(windows)]
        let read = file.seek_read(buf, offset);
        match read {
            Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, format!("the file ends at byte {offset}"))),
            Ok(n) => {
                buf = &mut buf[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `buf` at `offset`.
pub(super) fn write_all(file: &File, mut buf: &[u8], mut offset: u64) -> Result<()> {
    while !buf.is_empty() {
        #[cfg(unix)]
        let written = file.write_at(buf, offset);
        #[cfg(windows)]
        let written = file.seek_write(buf, offset);
        match written {
            Ok(0) => return Err(Error::new(ErrorKind::WriteZero, format!("nothing was written at byte {offset}"))),
            Ok(n) => {
                buf = &buf[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
