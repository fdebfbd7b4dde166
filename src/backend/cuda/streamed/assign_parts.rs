//! Nearest codewords of the parts of rows in host memory, each part with a codebook of its own: rows go to the device once
//! for all parts. Parts of few dimensions are labelled by one launch, others one after the other.

use crate::backend::AssignOptions;
use crate::backend::cuda::block::{BadValue, Block, Status};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::filter::{Filter, FilterPlan};
use crate::backend::cuda::label_parts::{Parts, WORDS, label_parts};
use crate::backend::cuda::lane::{Kept, Lane, Lanes, RowSize, stage};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::{Packing, Rows};
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
use std::ops::{ControlFlow, Range};

const OP: &str = "assign";

/// Gives `take` the labels of some rows after the other, `[codebooks.len(), rows]`. Columns are those of the codebooks side
/// by side, all of as many dimensions.
///
/// The inner error is the first row that holds a NaN or an infinity.
pub(crate) fn assign_parts<T: Element>(
    x: MatrixView<'_, T>,
    codebooks: &[&DeviceCodebook],
    take: &mut dyn FnMut(Range<usize>, &[u32]),
) -> Result<std::result::Result<(), usize>> {
    let n = x.rows();
    let (Some(&first), true) = (codebooks.first(), n > 0) else { return Ok(Ok(())) };
    let work = Work::new(codebooks, n)?;
    let row = RowSize {
        dtype: T::DTYPE,
        bytes: x.cols() * T::DTYPE.size() + 4 * codebooks.len() + work.bytes_per_row(first, T::DTYPE),
        per_lane: work.bytes(),
    };
    let kept = &first.idle.assign_parts;
    let buffers = |queue: &Queue, rows| Buffers::new(queue, first, T::DTYPE, rows, x.cols(), codebooks.len(), &work);
    let mut lanes = Lanes::new(OP, first, kept, n, row, buffers)?;
    if lanes.iter_mut().any(|lane| !lane.buffers.serve(&work, x.cols(), codebooks.len())) {
        // Made for other codebooks beside the first.
        drop(lanes);
        lanes = Lanes::new(OP, first, &Kept::default(), n, row, buffers)?;
    }
    for Lane { queue, buffers, .. } in lanes.iter_mut() {
        Status::clear(queue, &mut buffers.device.status().write())?;
        if let (Work::AtOnce(parts), OnDevice::AtOnce { table, .. }) = (&work, &mut buffers.device) {
            queue.copy_in(&parts.words(OP)?, &mut table.write())?;
        }
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebooks, &work)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Buffers { labels_on_host, status, .. } = &lane.buffers;
        if let Some(BadValue { row, .. }) = Status::of_words(status.as_slice()?).bad_value {
            return Ok(ControlFlow::Break(row as usize));
        }
        let len = codebooks.len() * range.len();
        take(range, &labels_on_host.as_slice()?[..len]);
        Ok(ControlFlow::Continue(()))
    };
    if let ControlFlow::Break(row) = lanes.run(n, submit, collect)? {
        return Ok(Err(row));
    }
    lanes.keep(OP, first, kept)?;
    Ok(Ok(()))
}

/// How the labels come about.
enum Work<'a> {
    AtOnce(Parts<'a>),
    InTurn(Plans),
}

impl<'a> Work<'a> {
    fn new(codebooks: &'a [&'a DeviceCodebook], n: usize) -> Result<Work<'a>> {
        if FilterPlan::may_use_tensor_cores(OP)? {
            match Parts::new(OP, codebooks) {
                Ok(Some(parts)) => return Ok(Work::AtOnce(parts)),
                Ok(None) => {}
                // One after the other needs less memory; or meets the same error.
                Err(why) => log::info!("labels of one part after the other: {why}"),
            }
        }
        let plan = |codebook: &&DeviceCodebook| FilterPlan::new(OP, codebook, n);
        Ok(Work::InTurn(Plans::new(&codebooks.iter().map(plan).collect::<Result<Vec<_>>>()?)))
    }

    /// Bytes of device memory of each row beside its values and labels.
    fn bytes_per_row(&self, first: &DeviceCodebook, dtype: Dtype) -> usize {
        match self {
            Work::AtOnce(_) => 0,
            Work::InTurn(plans) => {
                Block::bytes_per_row(first, dtype) + plans.plans.iter().map(FilterPlan::bytes_per_row).sum::<usize>()
            }
        }
    }

    /// Bytes of device memory of one lane.
    fn bytes(&self) -> usize {
        match self {
            Work::AtOnce(parts) => 8 * WORDS * parts.len(),
            Work::InTurn(plans) => plans.plans.iter().map(FilterPlan::bytes).sum(),
        }
    }
}

/// What filters the parts need: most codebooks are as large and need the same one.
struct Plans {
    plans: Vec<FilterPlan>,
    /// The plan of each part, and where it stands.
    of_parts: Vec<(FilterPlan, usize)>,
}

impl Plans {
    fn new(of_parts: &[FilterPlan]) -> Plans {
        let mut plans: Vec<FilterPlan> = Vec::new();
        let place = |&plan: &FilterPlan| {
            let known = plans.iter().position(|other| *other == plan);
            let place = known.unwrap_or_else(|| {
                plans.push(plan);
                plans.len() - 1
            });
            (plan, place)
        };
        let of_parts = of_parts.iter().map(place).collect();
        Plans { plans, of_parts }
    }
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    cols: usize,
    parts: usize,
    staging: Pinned<u8>,
    input: Buffer<u8>,
    device: OnDevice,
    labels: Buffer<u32>,
    labels_on_host: Pinned<u32>,
    status: Pinned<u64>,
}

/// What is computed beside the labels.
enum OnDevice {
    AtOnce {
        table: Buffer<u64>,
        status: Buffer<u64>,
    },
    InTurn {
        of_parts: Vec<(FilterPlan, usize)>,
        /// Used for one part after the other.
        block: Box<Block>,
        filters: Vec<Filter>,
    },
}

impl OnDevice {
    fn status(&mut self) -> &mut Buffer<u64> {
        match self {
            OnDevice::AtOnce { status, .. } => status,
            OnDevice::InTurn { block, .. } => &mut block.status,
        }
    }
}

impl Buffers {
    fn new(
        queue: &Queue,
        first: &DeviceCodebook,
        dtype: Dtype,
        capacity: u32,
        cols: usize,
        parts: usize,
        work: &Work<'_>,
    ) -> Result<Buffers> {
        let rows = capacity as usize;
        let bytes = rows * cols * dtype.size();
        let device = match work {
            Work::AtOnce(of) => {
                OnDevice::AtOnce { table: queue.alloc(WORDS * of.len())?, status: queue.alloc(Status::WORDS)? }
            }
            Work::InTurn(plans) => OnDevice::InTurn {
                of_parts: plans.of_parts.clone(),
                block: Box::new(Block::new(queue, first, dtype, capacity)?),
                filters: plans.plans.iter().map(|&plan| Filter::new(queue, plan, capacity)).collect::<Result<_>>()?,
            },
        };
        Ok(Buffers {
            cols,
            parts,
            staging: queue.alloc_pinned(bytes)?,
            input: queue.alloc(bytes)?,
            device,
            labels: queue.alloc(rows * parts)?,
            labels_on_host: queue.alloc_pinned(rows * parts)?,
            status: queue.alloc_pinned(Status::WORDS)?,
        })
    }

    /// Whether they were made for such work.
    fn serve(&self, work: &Work<'_>, cols: usize, parts: usize) -> bool {
        let device = match (work, &self.device) {
            (Work::AtOnce(_), OnDevice::AtOnce { .. }) => true,
            (Work::InTurn(plans), OnDevice::InTurn { of_parts, .. }) => *of_parts == plans.of_parts,
            _ => false,
        };
        device && (self.cols, self.parts) == (cols, parts)
    }

    /// Queues the work on `x`, whose first row is row `first_row` of the call.
    fn submit<T: Element>(
        &mut self,
        queue: &Queue,
        x: MatrixView<'_, T>,
        first_row: u64,
        codebooks: &[&DeviceCodebook],
        work: &Work<'_>,
    ) -> Result<()> {
        let Buffers { staging, input, device, labels, labels_on_host, status, .. } = self;
        let n = x.rows();
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let packing = Packing::for_assign(first_row, AssignOptions::default());
        match (device, work) {
            (OnDevice::AtOnce { table, status }, Work::AtOnce(parts)) => {
                let rows = Rows { values: input.read(), dtype: T::DTYPE, n, stride: x.cols() };
                label_parts(queue, parts, table, &rows, packing, &mut labels.write(), None, status)?;
            }
            (OnDevice::InTurn { of_parts, block, filters }, _) => {
                let mut start = 0;
                for (s, (codebook, &(_, filter))) in codebooks.iter().zip(of_parts.iter()).enumerate() {
                    let values = input.read().from(start * T::DTYPE.size());
                    let rows = Rows { values, dtype: T::DTYPE, n, stride: x.cols() };
                    let labels = &mut labels.write();
                    block.label(queue, codebook, &mut filters[filter], &rows, packing, &mut labels.from(s * n))?;
                    start += codebook.d as usize;
                }
            }
            (OnDevice::AtOnce { .. }, Work::InTurn(_)) => unreachable!("the buffers serve this work"),
        }
        queue.copy_out(labels.read(), &mut labels_on_host.as_mut_slice()?[..codebooks.len() * n])?;
        queue.copy_out(self.device.status().read(), status.as_mut_slice()?)
    }
}
