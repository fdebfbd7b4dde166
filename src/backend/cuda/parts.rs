//! Codes of rows on the device whose parts have codebooks of their own: labels of all parts by one launch, where parts have
//! few dimensions, or of one part after the other; then their bits, packed.

use super::block::{Block, Status};
use super::codebook::DeviceCodebook;
use super::filter::{Filter, FilterPlan};
use super::label_parts::{Parts, WORDS, label_parts};
use super::memory::{Buffer, Out};
use super::pack_codes::pack_codes;
use super::queue::Queue;
use super::rows::{Packing, Rows};
use crate::backend::AssignOptions;
use crate::error::Result;
use crate::matrix::Dtype;

/// How the labels come about.
pub(super) enum Work {
    AtOnce,
    InTurn(Plans),
}

impl Work {
    /// For `n` rows, on codebooks of as many dimensions each.
    pub fn new(op: &'static str, codebooks: &[&DeviceCodebook], n: usize) -> Result<Work> {
        if FilterPlan::may_use_tensor_cores(op)? {
            match Parts::new(op, codebooks) {
                Ok(Some(_)) => return Ok(Work::AtOnce),
                Ok(None) => {}
                // One after the other needs less memory; or meets the same error.
                Err(why) => log::info!("labels of one part after the other: {why}"),
            }
        }
        let plan = |codebook: &&DeviceCodebook| FilterPlan::new(op, codebook, n);
        Ok(Work::InTurn(Plans::new(&codebooks.iter().map(plan).collect::<Result<Vec<_>>>()?)))
    }

    /// Bytes of device memory of each row of a block of [`Encoder`].
    pub fn bytes_per_row(&self, codebooks: &[&DeviceCodebook], dtype: Dtype) -> usize {
        let block = match (self, codebooks.first()) {
            (Work::InTurn(Plans { plans, .. }), Some(first)) => {
                Block::bytes_per_row(first, dtype) + plans.iter().map(FilterPlan::bytes_per_row).sum::<usize>()
            }
            _ => 0,
        };
        block + 4 * codebooks.len()
    }

    /// Bytes of device memory of an [`Encoder`] beside its rows.
    pub fn bytes(&self, parts: usize) -> usize {
        match self {
            Work::AtOnce => 8 * WORDS * parts,
            Work::InTurn(plans) => plans.plans.iter().map(FilterPlan::bytes).sum(),
        }
    }
}

/// What filters the parts need: most codebooks are as large and need the same one.
#[derive(Clone, PartialEq)]
pub(super) struct Plans {
    plans: Vec<FilterPlan>,
    /// For each part where its plan stands.
    of_parts: Vec<usize>,
}

impl Plans {
    fn new(of_parts: &[FilterPlan]) -> Plans {
        let mut plans: Vec<FilterPlan> = Vec::new();
        let place = |plan: &FilterPlan| {
            plans.iter().position(|other| other == plan).unwrap_or_else(|| {
                plans.push(*plan);
                plans.len() - 1
            })
        };
        let of_parts = of_parts.iter().map(place).collect();
        Plans { plans, of_parts }
    }
}

/// Buffers for the codes of blocks of rows, used by one stream.
pub(super) struct Encoder {
    /// `[parts, rows]`.
    labels: Buffer<u32>,
    beside: Beside,
}

/// What is computed beside the labels.
enum Beside {
    AtOnce {
        /// What the launch knows of the codebooks.
        table: Buffer<u64>,
        status: Buffer<u64>,
    },
    InTurn {
        plans: Plans,
        /// Used for one part after the other.
        block: Box<Block>,
        filters: Vec<Filter>,
    },
}

impl Encoder {
    /// For blocks of up to `capacity` rows; [`Encoder::begin`] comes next.
    pub fn new(
        queue: &Queue,
        codebooks: &[&DeviceCodebook],
        work: &Work,
        dtype: Dtype,
        capacity: u32,
    ) -> Result<Encoder> {
        let parts = codebooks.len();
        let beside = match (work, codebooks.first()) {
            (Work::InTurn(plans), Some(first)) => Beside::InTurn {
                plans: plans.clone(),
                block: Box::new(Block::new(queue, first, dtype, capacity)?),
                filters: plans.plans.iter().map(|&plan| Filter::new(queue, plan, capacity)).collect::<Result<_>>()?,
            },
            _ => Beside::AtOnce { table: queue.alloc(WORDS * parts)?, status: queue.alloc(Status::WORDS)? },
        };
        Ok(Encoder { labels: queue.alloc(capacity as usize * parts)?, beside })
    }

    /// Whether it was made for such work, if on as many codebooks.
    pub fn serves(&self, work: &Work) -> bool {
        match (work, &self.beside) {
            (Work::AtOnce, Beside::AtOnce { .. }) => true,
            (Work::InTurn(plans), Beside::InTurn { plans: own, .. }) => plans == own,
            _ => false,
        }
    }

    /// Makes it ready for these codebooks, with nothing bad and nothing counted.
    pub fn begin(&mut self, queue: &Queue, codebooks: &[&DeviceCodebook]) -> Result<()> {
        if let Beside::AtOnce { table, .. } = &mut self.beside {
            queue.copy_in(&at_once(queue, codebooks)?.words(queue.op)?, &mut table.write())?;
        }
        Status::clear(queue, &mut self.status().write())
    }

    /// Queues the work on the rows of `x`, the first of which is row `first_row` of the call: their codes, `bits` for each
    /// part. A part of a row that is not finite gets bits that are all set.
    pub fn encode(
        &mut self,
        queue: &Queue,
        codebooks: &[&DeviceCodebook],
        x: &Rows<'_>,
        first_row: u64,
        bits: u32,
        codes: &mut Out<'_, u8>,
    ) -> Result<()> {
        let packing = Packing::for_assign(first_row, AssignOptions::default());
        let Encoder { labels, beside } = self;
        match beside {
            Beside::AtOnce { table, status } => {
                let parts = at_once(queue, codebooks)?;
                label_parts(queue, &parts, table, x, packing, &mut labels.write(), None, status)?;
            }
            Beside::InTurn { plans, block, filters } => {
                let mut start = 0;
                for (s, (codebook, &filter)) in codebooks.iter().zip(&plans.of_parts).enumerate() {
                    let rows = Rows { values: x.values.from(start * x.dtype.size()), ..*x };
                    let (filter, labels) = (&mut filters[filter], &mut labels.write());
                    block.label(queue, codebook, filter, &rows, packing, &mut labels.from(s * x.n))?;
                    start += codebook.d as usize;
                }
            }
        }
        // A block has at most `capacity` rows, and parts fit where codebooks of them do.
        pack_codes(queue, &labels.read(), x.n as u32, codebooks.len() as u32, bits, codes)
    }

    /// What kernels tell; the columns of values are those in a part.
    pub fn status(&mut self) -> &mut Buffer<u64> {
        match &mut self.beside {
            Beside::AtOnce { status, .. } => status,
            Beside::InTurn { block, .. } => &mut block.status,
        }
    }
}

/// The codebooks for the one launch.
fn at_once<'a>(queue: &Queue, codebooks: &'a [&'a DeviceCodebook]) -> Result<Parts<'a>> {
    Ok(Parts::new(queue.op, codebooks)?.expect("the work was planned for it"))
}
