//! Launches of kernels/adc_scan.cu.

use super::context::Context;
use super::memory::{Buffer, In, Out};
use super::queue::{Queue, refused};
use super::shapes::{ADC_CODES, ADC_GROUP, ADC_QUERIES, ADC_THREADS};
use crate::backend::scan::Numbers;
use crate::error::Result;
use cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as MOST_SHARED;
use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC;
use cudarc::driver::{CudaFunction, DriverError, LaunchConfig, PushKernelArg};

/// Codes that a block of threads adds up between two looks at its lists.
const ROUND: u32 = ADC_THREADS * ADC_CODES;
/// Rounds that a block of threads has at least: each begins lists of its own, and fills them.
const ROUNDS: u32 = 8;
/// Blocks of threads of a multiprocessor.
const BLOCKS: u32 = 4;
/// Queries of a pass at most. So many keep the device busy for longer than the codes are on their way to it.
const QUERIES: usize = 1024;
/// Device memory for tables and results of a pass, and likewise for lists.
const BYTES: usize = 64 << 20;
/// A pass takes no more than one part in so many of what is free for each of these.
const PART: usize = 8;

/// The sizes of a pass: room for so many queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub numbers: Numbers,
    /// A multiple of `ADC_QUERIES`.
    pub queries: u32,
    /// Queries of a tile, whose tables lie together: `ADC_QUERIES`, or one of its divisors.
    pub tile: u32,
    /// Whether those are copied to shared memory.
    pub in_shared: bool,
    /// Blocks of threads that share the codes of a launch.
    pub splits: u32,
    pub r: u32,
}

impl Shape {
    /// The sizes for `q` queries, one or more, and the `r` nearest of `n` codes; none where there is too little memory for
    /// the least number of queries.
    pub fn of(room: Room, numbers: Numbers, n: usize, q: usize, r: usize) -> Option<Shape> {
        let Room { free, shared, places } = room;
        let bytes = BYTES.min(free / PART);
        let list = r.checked_mul(2)?.checked_add(ROUND as usize)?.checked_mul(size_of::<u64>())?.checked_add(12)?;
        let each = numbers.entries().checked_mul(size_of::<f32>())?.checked_add(8 * r)?;
        let most = (bytes / each.checked_add(list)?).min(QUERIES) / ADC_QUERIES as usize * ADC_QUERIES as usize;
        // As many in each pass.
        let passes = q.div_ceil(Some(most).filter(|&most| most > 0)?);
        let queries = u32::try_from(q.div_ceil(passes)).ok()?.next_multiple_of(ADC_QUERIES);
        let rounds = u32::try_from(n.div_ceil(ROUND as usize)).ok()?;
        let lists = u32::try_from(bytes / (queries as usize * list)).ok()?;
        let (tile, in_shared) = tile(numbers, shared);
        let splits = (places / (queries / tile)).min(rounds.div_ceil(ROUNDS)).min(lists).max(1);
        Some(Shape { numbers, queries, tile, in_shared, splits, r: u32::try_from(r).ok()? })
    }

    fn shared_bytes(&self) -> u32 {
        // It fits: there is shared memory for as much.
        if self.in_shared { self.tile * self.numbers.entries() as u32 * size_of::<f32>() as u32 } else { 0 }
    }

    /// Words of the tables.
    pub fn tables(&self) -> usize {
        self.queries as usize * self.numbers.entries()
    }

    /// Keys of the result.
    pub fn keys(&self) -> usize {
        self.queries as usize * self.r as usize
    }

    /// Words of so many codes: whole groups.
    pub fn words(&self, codes: usize) -> usize {
        codes.next_multiple_of(ADC_GROUP as usize) * self.numbers.words()
    }

    fn lists(&self) -> usize {
        self.splits as usize * self.queries as usize
    }

    fn capacity(&self) -> u32 {
        // It fits: there is memory for as many keys.
        2 * self.r + ROUND
    }

    /// Bytes of device memory for all of them but the words.
    pub fn bytes(&self) -> usize {
        self.lists() * (self.capacity() as usize * 8 + 12) + self.tables() * 4 + self.keys() * 8
    }
}

/// What a device has for a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes of memory that are free.
    pub free: usize,
    /// Bytes of shared memory that a block of threads may have for tables.
    pub shared: usize,
    /// Blocks of threads that keep it busy.
    pub places: u32,
}

impl Room {
    /// What there is on a device for numbers of so many bits. From then on its kernels may use all of that shared memory.
    pub fn new(op: &'static str, context: &Context, bits: u32) -> Result<Room> {
        let (free, _) = context.memory(op)?;
        let tiles = if bits == 4 { &[ADC_QUERIES][..] } else { &[ADC_QUERIES, 2, 1] };
        let mut shared = usize::MAX;
        for &tile in tiles {
            let function = context.function("adc_scan", entry(bits, tile))?;
            let allowed = allow(context, &function);
            shared = shared.min(allowed.map_err(|error| refused(op, "shared memory for tables", error))?);
        }
        Ok(Room { free, shared, places: context.waves(BLOCKS) })
    }
}

/// Lets a kernel have as much dynamic shared memory as the device has beside what it always takes.
fn allow(context: &Context, function: &CudaFunction) -> std::result::Result<usize, DriverError> {
    context.cuda().bind_to_thread()?;
    let bytes = (context.cuda().attribute(MOST_SHARED)? - function.shared_size_bytes()?).max(0);
    function.set_attribute(DYNAMIC, bytes)?;
    Ok(bytes as usize)
}

/// What launches have found so far.
pub(super) struct Found {
    lists: Buffer<u64>,
    counts: Buffer<u32>,
    limits: Buffer<u64>,
}

impl Found {
    pub fn new(queue: &Queue, shape: &Shape) -> Result<Found> {
        Ok(Found {
            lists: queue.alloc(shape.lists() * shape.capacity() as usize)?,
            counts: queue.alloc(shape.lists())?,
            limits: queue.alloc(shape.lists())?,
        })
    }

    /// Nothing.
    pub fn clear(&mut self, queue: &Queue) -> Result<()> {
        queue.zero(&mut self.counts.write())?;
        queue.fill(&mut self.limits.write(), 0xff)
    }

    fn hold(&self, shape: &Shape) -> bool {
        let len = shape.lists();
        self.lists.read().len() >= len * shape.capacity() as usize
            && self.counts.read().len() >= len
            && self.limits.read().len() >= len
    }
}

/// Goes through `n` codes, the first of them number `first`, by the tables of `q` queries. The numbers in `words` are below
/// k: whoever wrote them has seen to it.
#[allow(clippy::too_many_arguments)] // where it runs, the codes, the tables, and where to
pub(super) fn scan(
    queue: &Queue,
    shape: &Shape,
    words: &In<'_, u32>,
    first: u32,
    n: u32,
    tables: &In<'_, f32>,
    q: u32,
    found: &mut Found,
) -> Result<()> {
    if n == 0 || q == 0 {
        return Ok(());
    }
    let Shape { numbers, queries, tile, in_shared, splits, r } = *shape;
    let capacity = shape.capacity();
    assert!(q <= queries && tables.len() >= shape.tables() && words.len() >= shape.words(n as usize), "check 2");
    assert!(found.hold(shape) && u32::MAX - first >= n, "checks 2 and 3");
    let (m, k) = (numbers.m, numbers.k);
    let entry = entry(numbers.bits, tile);
    let function = queue.context.function("adc_scan", entry)?;
    let config = config(splits, q, tile, shape.shared_bytes());
    let in_shared = u32::from(in_shared);
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(words).arg(tables).arg(&mut found.lists).arg(&mut found.counts).arg(&mut found.limits);
    launch.arg(&first).arg(&n).arg(&m).arg(&k).arg(&q).arg(&queries).arg(&r).arg(&capacity);
    if tile == ADC_QUERIES {
        launch.arg(&in_shared);
    }
    // SAFETY: checks 1 to 3; entries are named by numbers below k.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// The `r` least keys of each of `q` queries, in no order.
pub(super) fn merge(queue: &Queue, shape: &Shape, found: &Found, q: u32, keys: &mut Out<'_, u64>) -> Result<()> {
    if q == 0 {
        return Ok(());
    }
    let Shape { queries, splits, r, .. } = *shape;
    let capacity = shape.capacity();
    assert!(q <= queries && found.hold(shape) && keys.len() >= q as usize * r as usize, "check 2");
    let config = LaunchConfig { grid_dim: (q, 1, 1), block_dim: (ADC_THREADS, 1, 1), shared_mem_bytes: 0 };
    let function = queue.context.function("adc_scan", "adc_scan_merge")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&found.lists).arg(&found.counts).arg(keys).arg(&splits).arg(&queries).arg(&r).arg(&capacity);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("adc_scan_merge", &mut launch, config) }
}

/// The kernel for numbers of so many bits and so many queries of a tile.
fn entry(bits: u32, tile: u32) -> &'static str {
    match (bits, tile) {
        (4, _) => "adc_scan_u4",
        (8, 1) => "adc_scan_one_u8",
        (8, 2) => "adc_scan_two_u8",
        (8, _) => "adc_scan_u8",
        (_, 1) => "adc_scan_one_u16",
        (_, 2) => "adc_scan_two_u16",
        _ => "adc_scan_u16",
    }
}

/// How many queries a tile has, and whether their tables fit `shared` bytes of shared memory. Those of as many as can be
/// share a load; tables of which none fits are read where they are.
fn tile(numbers: Numbers, shared: usize) -> (u32, bool) {
    let fits = |tile: u32| numbers.entries().saturating_mul(tile as usize * size_of::<f32>()) <= shared;
    let tiles: &[u32] = if numbers.bits == 4 { &[ADC_QUERIES] } else { &[ADC_QUERIES, 2, 1] };
    match tiles.iter().find(|&&tile| fits(tile)) {
        Some(&tile) => (tile, true),
        None => (ADC_QUERIES, false),
    }
}

/// All splits and all tiles.
fn config(splits: u32, q: u32, tile: u32, shared_mem_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (splits, q.div_ceil(tile), 1), block_dim: (ADC_THREADS, 1, 1), shared_mem_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers { m: 8, k: 256, bits: 8 };

    fn of(free: usize, n: usize, q: usize, r: usize) -> Option<Shape> {
        Shape::of(Room { free, shared: 90_000, places: 528 }, NUMBERS, n, q, r)
    }

    #[test]
    fn few_queries_share_many_blocks_of_threads_and_many_have_one_for_each_tile() {
        let of = |n, q| of(80 << 30, n, q, 100).map(|shape| (shape.queries, shape.splits)).unwrap();
        assert_eq!(of(1_000_000, 1), (4, 123));
        assert_eq!(of(100_000_000, 1), (4, 528));
        assert_eq!(of(1000, 1), (4, 1));
        assert_eq!(of(1_000_000, 1000), (1000, 2));
        // In passes of one size.
        assert_eq!(of(1_000_000, 10_000), (1000, 2));
    }

    #[test]
    fn a_pass_takes_no_more_memory_than_its_part() {
        for free in [1 << 20, 4 << 20, 1 << 30, 80 << 30] {
            for r in [1, 100, 1000, 100_000] {
                for q in [1, 5, 3000] {
                    let Some(shape) = of(free, 1 << 30, q, r) else {
                        assert!(4 * (8 * 256 * 4 + 24 * r + 8204) > BYTES.min(free / PART), "{free} {r}");
                        continue;
                    };
                    assert!(shape.bytes() <= 2 * BYTES.min(free / PART), "{shape:?}");
                    assert_eq!(shape.queries % ADC_QUERIES, 0, "{shape:?}");
                    assert!(shape.splits > 0 && shape.queries as usize <= QUERIES, "{shape:?}");
                }
            }
        }
        assert_eq!(of(80 << 30, 1 << 30, 1, usize::MAX), None);
    }

    #[test]
    fn tables_of_as_many_queries_as_fit_are_in_shared_memory() {
        let of = |m, bits| tile(Numbers { m, k: 100, bits }, 40_000);
        assert_eq!((of(25, 8), of(26, 8), of(50, 8), of(51, 16)), ((4, true), (2, true), (2, true), (1, true)));
        assert_eq!((of(100, 16), of(101, 16), of(u32::MAX, 8)), ((1, true), (4, false), (4, false)));
        assert_eq!((of(25, 4), of(26, 4)), ((4, true), (4, false)));
        let shape = Shape { tile: 2, in_shared: true, ..super::tests::of(1 << 30, 9, 9, 1).unwrap() };
        assert_eq!((shape.shared_bytes(), Shape { in_shared: false, ..shape }.shared_bytes()), (16_384, 0));
        assert_eq!((config(7, 9, 4, 16).grid_dim, config(7, 9, 2, 16).grid_dim), ((7, 3, 1), (7, 5, 1)));
    }
}
