//! The filter pass: rounded scores of a tile of rows against panels of codewords, for any instruction set.
//!
//! Rows come as tiles, `[depth, rows]`, and codewords as panels, `[depth, width]`, so that one step of depth is
//! `rows` broadcasts times `width` lanes. A score is nothing but the dot product over the depth: what
//! [`super::panels`] appends to both sides turns it into half the squared distance, negated, plus the bound.
//! The larger, the nearer.
//!
//! The checks that the unsafe blocks cite are those of [`super::kernels`]. No closure in these functions: a closure
//! is a function of its own, and would be compiled without the instruction set.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.

use super::lanes::Lanes;

/// Products summed in one run before they join the total: keeps the rounding bound small for long vectors.
pub(crate) const CHUNK: usize = 512;

/// Roundings that a score of this depth can suffer on its way, in any of the kernels.
pub(super) fn roundings(depth: usize) -> usize {
    // A product may round on its own (no FMA), then every addition of its chunk and every addition of chunks.
    depth.min(CHUNK) + depth.div_ceil(CHUNK) + 1
}

/// Dot products over steps `from..to` of one tile with one panel, in registers where ROWS * REGS of them fit.
///
/// # Safety
/// Checks 1 to 3, and `from <= to <= depth`.
#[inline(always)]
unsafe fn run<L: Lanes, const ROWS: usize, const REGS: usize>(
    tile: *const f32,
    panel: *const f32,
    from: usize,
    to: usize,
) -> [[L; REGS]; ROWS] {
    // SAFETY: step < depth, so both reads lie within their depth * ROWS and depth * REGS * WIDTH values.
    unsafe {
        let zero = L::splat(0.0);
        let mut acc = [[zero; REGS]; ROWS];
        for step in from..to {
            let mut e = [zero; REGS];
            for reg in 0..REGS {
                e[reg] = L::load(panel.add((step * REGS + reg) * L::WIDTH));
            }
            for row in 0..ROWS {
                let z = L::splat(*tile.add(step * ROWS + row));
                for reg in 0..REGS {
                    acc[row][reg] = z.mul_add(e[reg], acc[row][reg]);
                }
            }
        }
        acc
    }
}

/// Scores of one tile against one panel.
///
/// # Safety
/// Checks 1 to 3.
#[inline(always)]
pub(super) unsafe fn dot<L: Lanes, const ROWS: usize, const REGS: usize>(
    tile: *const f32,
    panel: *const f32,
    depth: usize,
) -> [[L; REGS]; ROWS] {
    // SAFETY: every run ends at depth or before.
    unsafe {
        let mut total = run::<L, ROWS, REGS>(tile, panel, 0, depth.min(CHUNK));
        let mut from = CHUNK;
        while from < depth {
            let part = run::<L, ROWS, REGS>(tile, panel, from, depth.min(from + CHUNK));
            for row in 0..ROWS {
                for reg in 0..REGS {
                    total[row][reg] = total[row][reg].add(part[row][reg]);
                }
            }
            from += CHUNK;
        }
        total
    }
}

/// # Safety
/// Checks 1 to 4.
#[inline(always)]
pub(super) unsafe fn best<L: Lanes, const ROWS: usize, const REGS: usize>(
    tile: *const f32,
    mut panels: *const f32,
    depth: usize,
    ids: std::ops::Range<u32>,
    state: *mut f32,
) {
    let mut id = ids.start;
    while id < ids.end {
        // SAFETY: by check 3 a whole panel lies ahead while id < ids.end; by check 4 every row has its state.
        unsafe {
            let scores = dot::<L, ROWS, REGS>(tile, panels, depth);
            for (row, scores) in scores.iter().enumerate() {
                let state = state.add(row * 3 * L::WIDTH);
                let (mut best, mut second) = (L::load(state), L::load(state.add(L::WIDTH)));
                let mut register = L::load(state.add(2 * L::WIDTH));
                for (reg, &score) in scores.iter().enumerate() {
                    // Strictly greater, so that the first of equal scores stays.
                    register = score.if_greater(best, L::splat(f32::from_bits(id + reg as u32)), register);
                    second = second.max(score.min(best));
                    best = best.max(score);
                }
                best.store(state);
                second.store(state.add(L::WIDTH));
                register.store(state.add(2 * L::WIDTH));
            }
            panels = panels.add(depth * REGS * L::WIDTH);
        }
        id += REGS as u32;
    }
}

/// # Safety
/// Checks 1 to 4.
#[inline(always)]
pub(super) unsafe fn scores<L: Lanes, const ROWS: usize, const REGS: usize>(
    tile: *const f32,
    panels: *const f32,
    depth: usize,
    count: usize,
    out: *mut f32,
    stride: usize,
) {
    for panel in 0..count {
        // SAFETY: panel < count, by check 3 in bounds; by check 4 row * stride + count * width is.
        unsafe {
            let scores = dot::<L, ROWS, REGS>(tile, panels.add(panel * depth * REGS * L::WIDTH), depth);
            for (row, scores) in scores.iter().enumerate() {
                for (reg, score) in scores.iter().enumerate() {
                    score.store(out.add(row * stride + (panel * REGS + reg) * L::WIDTH));
                }
            }
        }
    }
}

/// The two best scores of a row over the panels seen so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Best {
    /// The largest score; minus infinity before any panel.
    pub score: f32,
    /// Its position in the packed codebook, the lowest among equal scores.
    pub position: usize,
    /// The second largest, equal to the first where two tie.
    pub runner_up: f32,
}

/// Merges the lanes of one row's state.
#[inline(always)]
pub(super) fn read<const WIDTH: usize>(state: &[f32]) -> Best {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lane_best = [0.0; WIDTH];
    lane_best.copy_from_slice(&state[..WIDTH]);
    let mut position = [0; WIDTH];
    let score = fold(lane_best, larger);
    for lane in 0..WIDTH {
        let register = state[2 * WIDTH + lane].to_bits();
        position[lane] = if lane_best[lane] == score { register * WIDTH as u32 + lane as u32 } else { u32::MAX };
    }
    let winner = fold(position, |a, b| if a < b { a } else { b });
    let mut others = lane_best;
    for lane in 0..WIDTH {
        others[lane] = if position[lane] == winner { state[WIDTH + lane] } else { lane_best[lane] };
    }
    Best { score, position: winner as usize, runner_up: fold(others, larger) }
}

/// Folds halves onto each other, which stays in registers.
#[inline(always)]
fn fold<T: Copy, const WIDTH: usize>(mut values: [T; WIDTH], merge: impl Fn(T, T) -> T) -> T {
    let mut half = WIDTH / 2;
    while half > 0 {
        for lane in 0..half {
            values[lane] = merge(values[lane], values[lane + half]);
        }
        half /= 2;
    }
    values[0]
}
