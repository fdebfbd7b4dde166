//! The filter pass of `assign` in one of three designs: cuBLAS for the cross terms, a tile at a time, our own kernel in
//! f32, or our own on tensor cores. Each leaves the same labels, for what it cannot settle is looked at again. For few
//! dimensions there is a fourth, which leaves nothing open.

use super::assign::{SCORE_BLOCKS, assign, parts_len};
use super::assign_tensor::{self, assign_tensor, list_tensor};
use super::assign_tile::assign_tile;
use super::block::Block;
use super::codebook::DeviceCodebook;
use super::cublas;
use super::gemm::{Gemm, Tile};
use super::label_parts::{self, Parts, label_parts};
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::rows::{Packing, Rows, rows};
use super::rows_tensor::{halves_len, rows_tensor, width};
use super::shapes::{SCORE_ROWS, TENSOR_ROWS, TENSOR_TILE};
use super::short_list::{ShortLists, short_list};
use super::tensor;
use crate::error::{Error, Result};
use std::sync::OnceLock;

/// Bytes of a tile of cross terms at most: it has to stay in the second-level cache, 40 MB and more where cuBLAS pays.
const TILE_BYTES: usize = 16 << 20;

/// Columns of a tile at most: a square one reads the least for its cross terms.
const TILE_COLS: u32 = 2048;

/// Bytes for cuBLAS to work in at most.
const WORKSPACE_BYTES: usize = 4 << 20;

/// How scores come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Design {
    Cublas,
    Simt,
    Tensor,
    /// From rows to labels in one launch.
    AtOnce,
}

impl Design {
    /// The faster one in f32 for `n` rows, `m` codewords and `d` dimensions, by a model (not yet measured): writing and
    /// reading a score through the cache costs cuBLAS as much as some 36 products, and a device is full from about
    /// 2^20 scores on.
    fn best(n: usize, m: u32, d: u32) -> Design {
        match n >= 1024 && m >= 512 && (128..=1 << 20).contains(&d) {
            true => Design::Cublas,
            false => Design::Simt,
        }
    }

    /// What `CODEWORD_CUDA_GEMM` forces, decided at the first call; none where it is unset or `auto`.
    fn forced(op: &'static str) -> Result<Option<Design>> {
        static FORCED: OnceLock<std::result::Result<Option<Design>, String>> = OnceLock::new();
        let forced = FORCED.get_or_init(|| match std::env::var_os("CODEWORD_CUDA_GEMM") {
            None => Ok(None),
            Some(name) => Design::parse(&name.to_string_lossy()),
        });
        forced.clone().map_err(|got| Error::InvalidParameter {
            op,
            name: "CODEWORD_CUDA_GEMM",
            expected: "unset or one of auto, cublas, simt, tensor".into(),
            got,
        })
    }

    fn parse(name: &str) -> std::result::Result<Option<Design>, String> {
        match name {
            "auto" => Ok(None),
            "cublas" => Ok(Some(Design::Cublas)),
            "simt" => Ok(Some(Design::Simt)),
            "tensor" => Ok(Some(Design::Tensor)),
            other => Err(other.to_string()),
        }
    }

    /// Whether tensor cores are the faster design. On an H200 their pass was up to nine times as fast as f32
    /// (docs/gpu-results.md), but it takes two launches more, which scores enough have to be worth. And what they are off by
    /// has to be little beside the distance to the nearest codeword, or more codewords can be the nearest than a list has
    /// room for: that is some (1/m)^(2/d) of the squared norms where codewords fill their space, and the bound grows with d.
    fn suits_tensor_cores(n: usize, m: u32, d: u32) -> bool {
        let scores = n as u64 * u64::from(m);
        let are_apart = f64::from(m).powf(2.0 / f64::from(d)) <= 2000.0;
        d <= 4096 && are_apart && scores >= if d < 64 { 1 << 23 } else { 1 << 18 }
    }

    /// The design of a call. Tensor cores that cannot be trusted are not used, whoever names them, which is logged once, but
    /// for a device of which nothing is known and nobody expects it. Where cuBLAS is missing or does not work, which is logged, our own kernel serves, unless
    /// cuBLAS is demanded.
    fn of_call(op: &'static str, n: usize, codebook: &DeviceCodebook) -> Result<Design> {
        let (m, d, mut forced) = (codebook.m, codebook.d, Design::forced(op)?);
        let at_once = label_parts::serves(codebook);
        let on_tensor_cores = || match at_once && tensor::eights_are_trusted(&codebook.context) {
            true => Design::AtOnce,
            false => Design::Tensor,
        };
        if forced == Some(Design::Tensor) {
            if tensor::accumulation(op, &codebook.context, d as usize)?.is_some() {
                return Ok(on_tensor_cores());
            }
            // Logged by the test.
            forced = None;
        }
        let suits = match at_once {
            true => n as u64 * u64::from(m) >= 1 << 20,
            false => Design::suits_tensor_cores(n, m, d),
        };
        if forced.is_none() && suits && tensor::are_known(&codebook.context) {
            let trusted = tensor::accumulation(op, &codebook.context, d as usize);
            match trusted.and_then(|bound| bound.map(|_| codebook.tensor(op)).transpose()) {
                Ok(Some(_)) => return Ok(on_tensor_cores()),
                // Logged by the test.
                Ok(None) => {}
                // Nobody asked for them, and f32 needs less memory.
                Err(why) => log::info!("scoring without tensor cores: {why}"),
            }
        }
        match (forced, Design::best(n, m, d)) {
            (Some(Design::Simt), _) | (None, Design::Simt) => Ok(Design::Simt),
            (forced, _) => match (cublas::library(), forced) {
                (Ok(_), None) if !codebook.context.cublas_works() => Ok(Design::Simt),
                (Ok(_), _) => Ok(Design::Cublas),
                (Err(_), None) => Ok(Design::Simt),
                (Err(missing), Some(_)) => Err(Error::Cuda {
                    op,
                    asked: "cuBLAS, which CODEWORD_CUDA_GEMM=cublas demands".into(),
                    got: missing.got.clone(),
                    way_out: "install cuBLAS and put its folder into LD_LIBRARY_PATH, or unset CODEWORD_CUDA_GEMM",
                    source: None,
                }),
            },
        }
    }
}

/// What the filter pass of a call needs beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilterPlan {
    Cublas { rows: u32, cols: u32, workspace: usize },
    Simt { parts: usize },
    Tensor { parts: usize, width: u32 },
    AtOnce,
}

impl FilterPlan {
    /// The plan for `n` rows.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `CODEWORD_CUDA_GEMM` names no design.
    /// - [`Error::Cuda`] where it demands cuBLAS and there is none.
    pub fn new(op: &'static str, codebook: &DeviceCodebook, n: usize) -> Result<FilterPlan> {
        Ok(match Design::of_call(op, n, codebook)? {
            // Two lanes on a small card: tile and workspace are an eighth of it each at most.
            Design::Cublas => FilterPlan::cublas(n, codebook.m, codebook.context.memory(op)?.0 / 16),
            Design::Simt => {
                // Blocks are whole tiles of rows, even where the call has fewer.
                let n = n.next_multiple_of(SCORE_ROWS as usize);
                FilterPlan::Simt { parts: parts_len(n, codebook.m, codebook.context.waves(SCORE_BLOCKS)) }
            }
            Design::Tensor => {
                // Made here, where waiting for the device is no surprise.
                codebook.tensor(op)?;
                let n = n.next_multiple_of(TENSOR_ROWS as usize);
                let parts = assign_tensor::parts_len(&codebook.context, n, codebook.m)?;
                FilterPlan::Tensor { parts, width: width(codebook.d) }
            }
            Design::AtOnce => {
                codebook.tensor(op)?;
                FilterPlan::AtOnce
            }
        })
    }

    /// Whether `CODEWORD_CUDA_GEMM` leaves a call to tensor cores.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where it names no design.
    pub fn may_use_tensor_cores(op: &'static str) -> Result<bool> {
        Ok(matches!(Design::forced(op)?, None | Some(Design::Tensor)))
    }

    /// Tiles that take `budget` bytes at most, if that is enough for one row.
    fn cublas(n: usize, m: u32, budget: usize) -> FilterPlan {
        let scores = budget.min(TILE_BYTES) / 4;
        // Runs of equal length, in whole 128-bit loads; the last may be shorter.
        let longest = TILE_COLS.min(u32::try_from(scores).unwrap_or(u32::MAX)).max(128);
        let cols = m.div_ceil(m.div_ceil(longest)).next_multiple_of(128).min(longest / 128 * 128);
        let rows = (scores / cols as usize).clamp(1, n.max(1));
        let workspace = budget.min(WORKSPACE_BYTES).next_multiple_of(256);
        // TILE_BYTES bounds it.
        FilterPlan::Cublas { rows: u32::try_from(rows).unwrap_or(u32::MAX), cols, workspace }
    }

    /// Bytes of device memory of one lane.
    pub fn bytes(&self) -> usize {
        match *self {
            FilterPlan::Cublas { rows, cols, workspace } => rows as usize * (cols as usize * 4 + 16) + workspace,
            FilterPlan::Simt { parts } => parts * 4,
            // The last tile of the rows may hold one alone.
            FilterPlan::Tensor { parts, width } => parts * 4 + 2 * (TENSOR_TILE - 1) as usize * width as usize,
            FilterPlan::AtOnce => 0,
        }
    }

    /// Bytes of device memory of each row of a lane's block beside what every design takes.
    pub fn bytes_per_row(&self) -> usize {
        match *self {
            FilterPlan::Tensor { width, .. } => 2 * width as usize + ShortLists::BYTES_PER_ROW,
            FilterPlan::Cublas { .. } | FilterPlan::Simt { .. } | FilterPlan::AtOnce => 0,
        }
    }
}

/// What the filter pass of a lane works with.
pub(super) enum Filter {
    Cublas {
        gemm: Gemm,
        tile: Tile,
        /// Rows of a tile at most.
        rows: u32,
        /// `[rows]` of four words.
        state: Buffer<u32>,
    },
    Simt {
        parts: Buffer<u32>,
    },
    Tensor {
        parts: Buffer<u32>,
        /// Tiles of `[capacity, width]`: the rows as f16.
        halves: Buffer<u16>,
        lists: Box<ShortLists>,
    },
    AtOnce,
}

impl Filter {
    /// For blocks of up to `capacity` rows.
    pub fn new(queue: &Queue, plan: FilterPlan, capacity: u32) -> Result<Filter> {
        match plan {
            FilterPlan::Cublas { rows, cols, workspace } => {
                let gemm = Gemm::new(queue, workspace)?;
                let cross = queue.alloc(rows as usize * cols as usize)?;
                let tile = Tile { cross, stride: cols, first_row: 0, rows: 0, first_col: 0, cols: 0 };
                Ok(Filter::Cublas { gemm, tile, rows, state: queue.alloc(4 * rows as usize)? })
            }
            FilterPlan::Simt { parts } => Ok(Filter::Simt { parts: queue.alloc(parts)? }),
            FilterPlan::Tensor { parts, width } => {
                let halves = queue.alloc(halves_len(capacity as usize, width))?;
                Ok(Filter::Tensor {
                    parts: queue.alloc(parts)?,
                    halves,
                    lists: Box::new(ShortLists::new(queue, capacity)?),
                })
            }
            FilterPlan::AtOnce => Ok(Filter::AtOnce),
        }
    }

    /// Whether it serves a codebook with as many distinct codewords and dimensions as the one that it was planned for; made
    /// ready for it, where waiting for the device is no surprise.
    pub fn serves(&self, op: &'static str, codebook: &DeviceCodebook) -> Result<bool> {
        match self {
            Filter::Cublas { .. } | Filter::Simt { .. } => Ok(true),
            Filter::AtOnce if !label_parts::serves(codebook) => Ok(false),
            Filter::Tensor { .. } | Filter::AtOnce => codebook.tensor(op).map(|_| true),
        }
    }

    /// Packs the rows into `block` the way that this design reads them.
    pub fn pack(
        &mut self,
        queue: &Queue,
        codebook: &DeviceCodebook,
        x: &Rows<'_>,
        block: &mut Block,
        packing: Packing,
    ) -> Result<()> {
        match self {
            Filter::Tensor { halves, .. } => rows_tensor(queue, codebook, x, block, packing, halves),
            Filter::Cublas { .. } | Filter::Simt { .. } => rows(queue, codebook, x, block, packing),
            Filter::AtOnce => Ok(()),
        }
    }

    /// Whether packing leaves the rows in the block as f32, too.
    pub fn widens(&self) -> bool {
        matches!(self, Filter::Cublas { .. } | Filter::Simt { .. })
    }

    /// Fits it to another plan. A handle of cuBLAS stays: to destroy one may wait for the device.
    pub fn refit(&mut self, queue: &Queue, plan: FilterPlan, capacity: u32) -> Result<()> {
        match (&mut *self, plan) {
            (Filter::Cublas { tile, rows, state, .. }, FilterPlan::Cublas { rows: new_rows, cols, .. }) => {
                let cross = queue.alloc(new_rows as usize * cols as usize)?;
                *state = queue.alloc(4 * new_rows as usize)?;
                *tile = Tile { cross, stride: cols, first_row: 0, rows: 0, first_col: 0, cols: 0 };
                *rows = new_rows;
            }
            (Filter::Simt { parts }, FilterPlan::Simt { parts: len }) => *parts = queue.alloc(len)?,
            _ => *self = Filter::new(queue, plan, capacity)?,
        }
        Ok(())
    }

    /// Labels of the rows of a packed block, which are those of `x`; those that the filter pass cannot settle go to the
    /// block's `again`, whose count is zero before.
    pub fn assign(
        &mut self,
        queue: &Queue,
        codebook: &DeviceCodebook,
        block: &mut Block,
        x: &Rows<'_>,
        packing: Packing,
        labels: &mut Out<'_, u32>,
    ) -> Result<()> {
        // A block has at most `capacity` rows.
        let (n, fast) = (x.n as u32, packing.plain);
        let (gemm, tile, rows, state) = match self {
            Filter::AtOnce => {
                let table = &codebook.tensor(queue.op)?.words;
                let codebook = [codebook];
                let parts = Parts::new(queue.op, &codebook)?.expect("the plan was made for it");
                let Block { kinds, status, .. } = block;
                return label_parts(queue, &parts, table, x, packing, labels, Some(kinds), status);
            }
            Filter::Simt { parts } => return assign(queue, codebook, block, n, fast, parts, labels),
            Filter::Tensor { parts, halves, lists } => {
                let codewords = codebook.tensor(queue.op)?;
                assign_tensor(queue, codebook, codewords, block, halves, n, fast, parts, lists, labels)?;
                // Fast labels are open only where nothing is known of the row.
                if fast {
                    return Ok(());
                }
                list_tensor(queue, codebook, codewords, block, halves, n, lists)?;
                return short_list(queue, codebook, block, lists, x, labels);
            }
            Filter::Cublas { gemm, tile, rows, state } => (gemm, tile, *rows as usize, state),
        };
        for first_row in (0..n).step_by(rows) {
            (tile.first_row, tile.rows) = (first_row, (n - first_row).min(rows as u32));
            for first_col in (0..codebook.m).step_by(tile.stride as usize) {
                (tile.first_col, tile.cols) = (first_col, (codebook.m - first_col).min(tile.stride));
                gemm.cross(queue.op, codebook, block, tile)?;
                assign_tile(queue, codebook, block, tile, fast, state, labels)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_products_of_long_vectors_are_worth_cublas_and_nothing_else_is() {
        for (n, m, d) in [(1_000_000, 1024, 256), (1_000_000, 16384, 256), (4096, 8192, 768), (1024, 512, 128)] {
            assert_eq!(Design::best(n, m, d), Design::Cublas, "{n} x {m} x {d}");
        }
        // A bound on sums of any order says nothing beyond 2^24 products.
        for (n, m, d) in [(1, 16384, 256), (1_000_000, 256, 256), (1_000_000, 16384, 8), (4096, 1024, 1 << 24)] {
            assert_eq!(Design::best(n, m, d), Design::Simt, "{n} x {m} x {d}");
        }
    }

    #[test]
    fn tensor_cores_are_for_many_scores() {
        for (n, m, d) in
            [(256, 1024, 256), (1_000_000, 1024, 256), (1_000_000, 256, 16), (65_536, 8192, 4), (65_536, 1024, 2)]
        {
            assert!(Design::suits_tensor_cores(n, m, d), "{n} x {m} x {d}");
        }
        let near = [(1_000_000, 1024, 1), (1_000_000, 8192, 2)];
        for (n, m, d) in
            [(1, 16384, 256), (16_384, 256, 16), (1024, 255, 256), (1 << 20, 1 << 20, 4097)].into_iter().chain(near)
        {
            assert!(!Design::suits_tensor_cores(n, m, d), "{n} x {m} x {d}");
        }
    }

    #[test]
    fn names_of_designs_are_taken_as_they_are_and_no_others() {
        assert_eq!(Design::parse("auto"), Ok(None));
        assert_eq!(Design::parse("cublas"), Ok(Some(Design::Cublas)));
        assert_eq!(Design::parse("simt"), Ok(Some(Design::Simt)));
        assert_eq!(Design::parse("tensor"), Ok(Some(Design::Tensor)));
        for name in ["", "CUBLAS", "cublas ", "tensors"] {
            assert_eq!(Design::parse(name), Err(name.into()));
        }
    }

    #[test]
    fn what_is_planned_for_tensor_cores_covers_the_last_tile() {
        let (parts, width) = (1000, 272);
        let plan = FilterPlan::Tensor { parts, width };
        for capacity in [1, 2, 127, 128, 129, 1000] {
            let lists = capacity * ShortLists::BYTES_PER_ROW;
            let taken = 4 * parts + 2 * halves_len(capacity, width) + lists;
            let planned = plan.bytes() + capacity * plan.bytes_per_row();
            assert!(planned >= taken, "{capacity}: {planned} for {taken}");
        }
        assert_eq!(plan.bytes() + plan.bytes_per_row(), 4 * parts + 2 * 128 * 272 + ShortLists::BYTES_PER_ROW);
    }

    #[test]
    fn tiles_stay_in_the_cache_and_cover_every_codeword() {
        for m in [2, 128, 129, 1000, 2048, 2049, 3000, 16384, 1_000_003] {
            for (n, budget) in [(1, 1 << 30), (1_000_000, 1 << 30), (1_000_000, 1 << 20), (50, 4096), (50, 0)] {
                let FilterPlan::Cublas { rows, cols, workspace } = FilterPlan::cublas(n, m, budget) else { panic!() };
                assert!(rows > 0 && rows as usize <= n && cols > 0 && cols.is_multiple_of(128), "{rows} x {cols}");
                assert!(cols <= TILE_COLS && cols < m + 128, "{cols} of {m}");
                // A row of a tile there is always.
                assert!((rows as usize * cols as usize * 4) <= budget.clamp(512, TILE_BYTES), "{m}: {rows} x {cols}");
                assert!(workspace <= budget.min(WORKSPACE_BYTES) + 255 && workspace.is_multiple_of(256), "{workspace}");
            }
        }
        assert_eq!(
            FilterPlan::cublas(1_000_000, 3000, 1 << 30),
            FilterPlan::Cublas { rows: 2730, cols: 1536, workspace: WORKSPACE_BYTES }
        );
    }
}
