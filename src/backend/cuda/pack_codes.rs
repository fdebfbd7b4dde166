//! Launch of kernels/pack_codes.cu.

use super::memory::{In, Out};
use super::queue::Queue;
use super::shapes::PACK_CODES_THREADS;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Bytes of the code of a row of so many parts.
pub(super) fn code_size(parts: usize, bits: u32) -> usize {
    // Of so many parts there are codebooks in memory, so that the product fits.
    (parts * bits as usize).div_ceil(8)
}

/// Packs the labels of `n` rows, `[parts, n]`, into codes of 1 to 16 bits a part, `[n, code_size]`.
pub(super) fn pack_codes(
    queue: &Queue,
    labels: &In<'_, u32>,
    n: u32,
    parts: u32,
    bits: u32,
    codes: &mut Out<'_, u8>,
) -> Result<()> {
    if n == 0 || parts == 0 {
        return Ok(());
    }
    let bytes = n as usize * code_size(parts as usize, bits);
    assert!((1..=16).contains(&bits), "check 1");
    assert!(n as usize * parts as usize <= labels.len() && bytes <= codes.len(), "check 2");
    let entry = match bits {
        8 => "pack_codes_u8",
        16 => "pack_codes_u16",
        _ => "pack_codes_bits",
    };
    let config = config(bytes, queue.context.waves(8));
    let function = queue.context.function("pack_codes", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(labels).arg(codes).arg(&n).arg(&parts);
    if !matches!(bits, 8 | 16) {
        launch.arg(&bits);
    }
    // SAFETY: checks 1 to 3; labels are not read as indices.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// A thread for each word, up to as many as the device has places for; these take words in turn.
fn config(bytes: usize, places: u32) -> LaunchConfig {
    // One word more than there are whole ones where codes begin within a word.
    let blocks = (bytes / 4 + 2).div_ceil(PACK_CODES_THREADS as usize);
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX).min(places.max(1));
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (PACK_CODES_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_thread_or_waits_for_one() {
        assert_eq!(config(1, 1000).grid_dim, (1, 1, 1));
        assert_eq!(config(4 * PACK_CODES_THREADS as usize, 1000).grid_dim, (2, 1, 1));
        assert_eq!(config(6_000_000, 1056).grid_dim, (1056, 1, 1));
        assert_eq!(config(usize::MAX, 0).grid_dim, (1, 1, 1));
    }

    #[test]
    fn codes_have_whole_bytes() {
        assert_eq!([(1, 1), (6, 8), (3, 5), (8, 1), (9, 1), (3, 16)].map(|(m, b)| code_size(m, b)), [1, 6, 2, 1, 2, 6]);
    }
}
