//! The nearest codes, which are in host memory, by tables of distances.

use crate::backend::cuda::adc_scan::{Found, Room, Shape, merge, scan};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::lane::{Kept, Lane, Lanes, RowSize};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::shapes::ADC_GROUP;
use crate::backend::scan::{GROUP, Numbers};
use crate::error::Result;
use crate::matrix::Dtype;
use rayon::prelude::*;
use std::ops::{ControlFlow, Range};

const _: () = assert!(GROUP == ADC_GROUP as usize, "words lie as the kernel reads them");

impl DeviceCodebook {
    /// The sizes of a pass of a scan, and how many bytes are free.
    pub(crate) fn scan_shape(
        &self,
        op: &'static str,
        numbers: Numbers,
        n: usize,
        queries: usize,
        r: usize,
    ) -> Result<(Option<Shape>, usize)> {
        let room = Room::new(op, &self.context, numbers.bits)?;
        Ok((Shape::of(room, numbers, n, queries.max(1), r), room.free))
    }
}

/// Keys of the codes nearest to each query: see [`crate::backend::scan::DeviceScan::keys`].
pub(crate) fn nearest(
    op: &'static str,
    codebook: &DeviceCodebook,
    shape: &Shape,
    tables: &[f32],
    n: usize,
    write: impl Fn(Range<usize>, &mut [u32]),
) -> Result<Vec<Vec<u64>>> {
    let q = tables.len() / shape.numbers.entries();
    if q == 0 || n == 0 {
        return Ok(vec![Vec::new(); q]);
    }
    let tiles = by_tiles(tables, shape.numbers.entries(), shape.tile as usize);
    let kept = &codebook.idle.adc_scan;
    // The last group of a block is whole, whatever the block has of it.
    let row = RowSize {
        dtype: Dtype::F32,
        bytes: 4 * shape.numbers.words(),
        per_lane: shape.bytes() + 4 * shape.words(GROUP),
    };
    let buffers = |queue: &Queue, codes: u32| Buffers::new(queue, shape, codes as usize);
    let mut lanes = Lanes::new(op, codebook, kept, n, row, buffers)?;
    if lanes.iter_mut().any(|lane| lane.buffers.shape != *shape) {
        // Made for other queries.
        drop(lanes);
        lanes = Lanes::new(op, codebook, &Kept::default(), n, row, buffers)?;
    }
    for Lane { queue, buffers, .. } in lanes.iter_mut() {
        (queue.op, buffers.is_used) = (op, false);
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        if !buffers.is_used {
            buffers.start(queue, &tiles)?;
        }
        let words = &mut buffers.staging.as_mut_slice()?[..shape.words(range.len())];
        write(range.clone(), words);
        queue.copy_in(words, &mut buffers.words.write())?;
        // Fewer than 2^32 codes, and so are those of a tile of queries.
        let (first, n, q) = (range.start as u32, range.len() as u32, q as u32);
        scan(queue, shape, &buffers.words.read(), first, n, &buffers.tables.read(), q, &mut buffers.found)
    };
    // Lists stay on the device until all codes are through.
    let _ = lanes.run(n, submit, |_, _| Ok(ControlFlow::Continue(())))?;
    for Lane { queue, buffers, .. } in lanes.iter_mut().filter(|lane| lane.buffers.is_used) {
        let Buffers { found, keys, keys_on_host, .. } = buffers;
        merge(queue, shape, found, q as u32, &mut keys.write())?;
        queue.copy_out(keys.read(), &mut keys_on_host.as_mut_slice()?[..q * shape.r as usize])?;
    }
    let mut nearest = vec![Vec::new(); q];
    for Lane { queue, buffers, .. } in lanes.iter_mut().filter(|lane| lane.buffers.is_used) {
        queue.synchronize()?;
        let keys = buffers.keys_on_host.as_slice()?.chunks_exact(shape.r as usize);
        nearest.iter_mut().zip(keys).for_each(|(all, keys)| all.extend_from_slice(keys));
    }
    lanes.keep(op, codebook, kept)?;
    Ok(nearest)
}

/// Tables of `entries` entries as those of tiles of so many queries, `[ceil(q / queries), entries, queries]`.
fn by_tiles(tables: &[f32], entries: usize, queries: usize) -> Vec<f32> {
    // What belongs to no query is never near.
    let mut tiles = vec![f32::INFINITY; (tables.len() / entries).next_multiple_of(queries) * entries];
    let tile = |(tile, tables): (&mut [f32], &[f32])| {
        for (c, table) in tables.chunks_exact(entries).enumerate() {
            tile.iter_mut().skip(c).step_by(queries).zip(table).for_each(|(to, &entry)| *to = entry);
        }
    };
    tiles.par_chunks_exact_mut(queries * entries).zip(tables.par_chunks(queries * entries)).for_each(tile);
    tiles
}

/// What a block of codes needs, and what was found in all that went through the lane.
pub(in crate::backend::cuda) struct Buffers {
    shape: Shape,
    is_used: bool,
    staging: Pinned<u32>,
    words: Buffer<u32>,
    tables: Buffer<f32>,
    found: Found,
    keys: Buffer<u64>,
    keys_on_host: Pinned<u64>,
}

impl Buffers {
    fn new(queue: &Queue, shape: &Shape, codes: usize) -> Result<Buffers> {
        let words = shape.words(codes);
        Ok(Buffers {
            shape: *shape,
            is_used: false,
            staging: queue.alloc_pinned(words)?,
            words: queue.alloc(words)?,
            tables: queue.alloc(shape.tables())?,
            found: Found::new(queue, shape)?,
            keys: queue.alloc(shape.keys())?,
            keys_on_host: queue.alloc_pinned(shape.keys())?,
        })
    }

    /// Begins a pass.
    fn start(&mut self, queue: &Queue, tiles: &[f32]) -> Result<()> {
        self.is_used = true;
        queue.copy_in(tiles, &mut self.tables.write())?;
        self.found.clear(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_tile_lie_entry_by_entry() {
        let tables: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let inf = f32::INFINITY;
        let expected = [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0, 8.0, inf, inf, inf, 9.0, inf, inf, inf];
        assert_eq!(by_tiles(&tables, 2, 4), expected);
        assert_eq!(by_tiles(&tables, 2, 2), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0, 8.0, inf, 9.0, inf]);
        assert_eq!(by_tiles(&tables, 2, 1), tables);
    }
}
