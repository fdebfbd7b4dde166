//! Labels that follow their codewords from one iteration of k-means to the next, by bounds that are carried along
//! (Ding, Zhao, Shen, Musuvathi and Mytkowicz 2015, "Yinyang k-means"; without its global bound, and with sums that are certified).
//!
//! The codewords are put into groups of [`PANEL`] that lie together, once, in the order that [`super::box_panels`] has. For
//! every row and every group there is a lower bound of the distances to the group's codewords, that of the row's own label left out. Where
//! codewords move, no distance shrinks by more than the largest move of the group. So a row that has measured the distance
//! to its own codeword, which is wanted anyway, looks into those groups alone whose bounds are not above it, and renews these
//! bounds; where there are none, its label stays.
//!
//! Bounds are not lowered one by one: M is the sum of the largest moves of a group since the start, and what is kept is
//! B = l + M for a bound l of that moment. While B <= distance + M holds, and it goes on to hold where M grows by what a codeword
//! moves, B > u + M says that every codeword of the group is farther than u, which the row's own is not.
//!
//! Roundings, u = 2^-24:
//! - the distance to the row's own codeword is the real square rounded once, and its root goes up by 2^-22 before and after
//!   it is taken, for that rounding, those of the products and the root, and that of u + M;
//! - moves are f64 sums, larger by 2^-40 times what their roundings can be off; M goes up by 2^-20 where it is read and down by that where it is
//!   stored: more than roundings to f32 and of additions;
//! - a sum of d squared differences is f32, in two chains: with the difference, which is squared, the square, its additions and the last of all
//!   at most d + 5 roundings on the way of a term, so that it is within r = (d + 5) u / (1 - (d + 5) u), relative to itself
//!   or to the real number, and d + 1 times 2^-149 for what underflows. A codeword can be the nearest where its sum is not
//!   above s (1 + 2 (d + 16) u) + 2^-135, given the sum s of another, and a distance is not below the root of
//!   s (1 - (d + 16) u) - 2^-135, less 2^-21 of it: for up to [`MAX_D`] dimensions that leaves room for the roundings of the limits
//!   themselves. A sum that overflowed counts as the largest f32, which it is not below.
//!
//! Huge and tiny values need nothing else: infinite limits leave everything open, and where squares underflow, bounds are 0.
//! Where more than one codeword is left, [`super::look`] decides among them; all that tie for the nearest are there, for
//! a group is passed over only where it is farther.

use super::bound_kernels::{BoundKernels, Found, Groups, MAX_GROUPS, Rows};
use super::box_panels::arrange;
use super::exact::round_exact_sq_l2;
use super::kernels::Kernels;
use super::look::{Look, Tier};
use super::on_host::OnHost;
use super::small_kernels::PANEL;
use crate::backend::AssignStats;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Dimensions up to which the limits above have room.
pub(crate) const MAX_D: usize = 4096;
/// Rows of a block.
const BLOCK_ROWS: usize = 1024;

/// Codewords, and what is known of the distances of rows to them.
pub(crate) struct Bounds {
    kernels: &'static Kernels,
    bound_kernels: &'static BoundKernels,
    d: usize,
    /// Label of every position, and position of every label.
    labels: Vec<u32>,
    places: Vec<u32>,
    /// `[k, d]` by position.
    codewords: Vec<f32>,
    /// `[groups][d][PANEL]`: the same; infinite where there is none.
    panels: Vec<[f32; PANEL]>,
    /// What each group has moved by: M, rounded up.
    moved: Vec<f64>,
    /// M rounded further up, and down, `[stride]`.
    high: Vec<f32>,
    low: Vec<f32>,
    /// Position of the codeword of every row.
    positions: Vec<u32>,
    /// `[n, stride]`: B.
    lower: Vec<f32>,
    stride: usize,
}

/// Whether there can be bounds for so many codewords. With a single group there would be little to pass over.
pub(crate) fn can_be(k: usize) -> bool {
    (2..=MAX_GROUPS).contains(&groups(k))
}

/// Groups of so many codewords.
pub(crate) fn groups(k: usize) -> usize {
    k.div_ceil(PANEL)
}

/// Bounds that are kept for a row: those of whole registers, however wide.
pub(crate) fn stride(k: usize) -> usize {
    groups(k).next_multiple_of(PANEL)
}

impl Bounds {
    /// Of `n` rows, of which nothing is known yet. None where there are too many codewords or dimensions, or no memory.
    pub fn new(host: &OnHost, n: usize) -> Option<Bounds> {
        let codewords = host.codewords.view();
        let (k, d) = (codewords.rows(), codewords.cols());
        let groups = groups(k);
        if d > MAX_D || !can_be(k) {
            return None;
        }
        let stride = stride(k);
        let mut labels: Vec<u32> = (0..k as u32).collect();
        arrange(&mut labels, codewords);
        let mut places = vec![0; k];
        (0..).zip(&labels).for_each(|(position, &label)| places[label as usize] = position);
        let mut bounds = Bounds {
            kernels: Kernels::of(host.isa()),
            bound_kernels: BoundKernels::of(host.isa()),
            d,
            labels,
            places,
            codewords: vec![0.0; k * d],
            panels: vec![[f32::INFINITY; PANEL]; groups * d],
            moved: vec![0.0; groups],
            high: vec![0.0; stride],
            low: vec![0.0; stride],
            positions: zeros(n)?,
            lower: zeros(n.checked_mul(stride)?)?,
            stride,
        };
        bounds.pack(codewords);
        Some(bounds)
    }

    /// Where the rows may have their codewords already.
    pub fn start_from(&mut self, labels: &[u32]) {
        let of_rows = self.positions.iter_mut().zip(labels);
        of_rows.for_each(|(position, &label)| *position = self.places[label as usize]);
    }

    fn pack(&mut self, codewords: MatrixView<'_, f32>) {
        let of_positions = self.codewords.chunks_exact_mut(self.d).zip(&self.labels);
        for (position, (codeword, &label)) in of_positions.enumerate() {
            codeword.copy_from_slice(codewords.row(label as usize));
            let panel = &mut self.panels[position / PANEL * self.d..][..self.d];
            panel.iter_mut().zip(&*codeword).for_each(|(step, &value)| step[position % PANEL] = value);
        }
    }

    /// These are the codewords now, as many as before.
    pub fn follow(&mut self, host: &OnHost) {
        let codewords = host.codewords.view();
        let of_groups = self.codewords.chunks(PANEL * self.d).zip(self.labels.chunks(PANEL));
        for (group, (before, labels)) in of_groups.enumerate() {
            let moves = before.chunks_exact(self.d).zip(labels).map(|(before, &label)| {
                let after = codewords.row(label as usize);
                before.iter().zip(after).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>()
            });
            let largest = moves.fold(0.0, f64::max).sqrt();
            let moved = (self.moved[group] + largest) * (1.0 + 2f64.powi(-40));
            self.moved[group] = moved;
            self.high[group] = ((moved * (1.0 + 2f64.powi(-20))) as f32).next_up();
            self.low[group] = ((moved * (1.0 - 2f64.powi(-20))) as f32).next_down().max(0.0);
        }
        self.pack(codewords);
    }

    /// Labels the rows of `x`, all of them finite: those from row `first` on. Tells how many groups were looked into.
    pub fn assign<T: Element>(
        &mut self,
        x: MatrixView<'_, T>,
        first: usize,
        host: &OnHost,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> (AssignStats, usize) {
        let (d, k, stride) = (self.d, self.labels.len(), self.stride);
        let positions = &mut self.positions[first..][..labels.len()];
        let lower = &mut self.lower[first * stride..][..labels.len() * stride];
        let job = Job {
            kernels: self.kernels,
            bound_kernels: self.bound_kernels,
            groups: Groups { k, d, panels: &self.panels, high: &self.high, low: &self.low },
            stride,
            codewords: host.codewords.view(),
            labels: &self.labels,
            places: &self.places,
        };
        labels
            .par_chunks_mut(BLOCK_ROWS)
            .zip(sq_distances.par_chunks_mut(BLOCK_ROWS))
            .zip(positions.par_chunks_mut(BLOCK_ROWS).zip(lower.par_chunks_mut(BLOCK_ROWS * stride)))
            .enumerate()
            .map_init(Workspace::default, |workspace, (i, ((labels, sq_distances), (positions, lower)))| {
                let start = i * BLOCK_ROWS;
                let x = x.block(start..start + labels.len());
                workspace.assign(&job, x, labels, sq_distances, positions, lower)
            })
            .reduce(|| (AssignStats::default(), 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// As many zeros, where there is memory for them.
fn zeros<V: Copy + Default>(len: usize) -> Option<Vec<V>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).ok()?;
    values.resize(len, V::default());
    Some(values)
}

struct Job<'a> {
    kernels: &'static Kernels,
    bound_kernels: &'static BoundKernels,
    groups: Groups<'a>,
    stride: usize,
    codewords: MatrixView<'a, f32>,
    labels: &'a [u32],
    places: &'a [u32],
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    found: Found,
    look: Look,
    among: Vec<u32>,
    wide: Vec<f32>,
}

impl Workspace {
    /// One block. Tells how many groups were looked into.
    fn assign<T: Element>(
        &mut self,
        job: &Job<'_>,
        x: MatrixView<'_, T>,
        labels: &mut [u32],
        sq_distances: &mut [f32],
        positions: &mut [u32],
        lower: &mut [f32],
    ) -> (AssignStats, usize) {
        let Workspace { found, look, among, wide } = self;
        let x = x.as_f32(wide);
        labels.iter_mut().zip(&*positions).for_each(|(label, &position)| *label = job.labels[position as usize]);
        job.distances(x, labels, sq_distances, look);
        let mut rows = Rows { positions, sq_distances, lower, stride: job.stride };
        job.bound_kernels.open(&rows, &job.groups, found);
        job.bound_kernels.visit(x, &job.groups, &mut rows, found);
        let mut stats = AssignStats::default();
        let mut start = 0;
        for &(i, end) in &found.ties {
            let i = i as usize;
            among.clear();
            among.extend(found.candidates[start..end].iter().map(|&position| job.labels[position as usize]));
            among.sort_unstable();
            start = end;
            let (label, tier) = look.nearest(job.kernels, x.row(i), among, |j| job.codewords.row(j as usize));
            match tier {
                Tier::Second => stats.second += 1,
                Tier::F64 => stats.f64 += 1,
                Tier::Exact => stats.exact += 1,
            }
            let place = job.places[label as usize];
            if place != positions[i] {
                // From now on the bound there is one of the codeword that was left, too.
                lower[i * job.stride + positions[i] as usize / PANEL] = 0.0;
                positions[i] = place;
                found.changed.push(i as u32);
            }
        }
        for &i in &found.changed {
            let i = i as usize;
            labels[i] = job.labels[positions[i] as usize];
            job.distances(x.block(i..i + 1), &labels[i..=i], &mut sq_distances[i..=i], look);
        }
        stats.first = labels.len() as u64 - (stats.second + stats.f64 + stats.exact);
        (stats, found.visits)
    }
}

impl Job<'_> {
    /// The rounded distance of every row to its codeword.
    fn distances(&self, x: MatrixView<'_, f32>, labels: &[u32], sq_distances: &mut [f32], look: &mut Look) {
        self.kernels.sq_distances(x, self.codewords, labels, sq_distances);
        for (i, sq_distance) in sq_distances.iter_mut().enumerate().filter(|(_, sq_distance)| sq_distance.is_nan()) {
            *sq_distance = round_exact_sq_l2(x.row(i), self.codewords.row(labels[i] as usize), &mut look.sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::AssignOptions;
    use crate::backend::cpu::isa::Isa;
    use crate::matrix::Matrix;

    /// Numbers between -1 and 1.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
        }

        fn some(&mut self, count: usize) -> Vec<f32> {
            (0..count).map(|_| self.next()).collect()
        }
    }

    impl Bounds {
        /// What every bound says, in f64: no codeword of its group but the row's own is nearer.
        fn check(&self, x: MatrixView<'_, f32>) {
            for (i, lower) in self.lower.chunks_exact(self.stride).enumerate() {
                for (position, codeword) in self.codewords.chunks_exact(self.d).enumerate() {
                    let squares = x.row(i).iter().zip(codeword).map(|(&z, &e)| (f64::from(z) - f64::from(e)).powi(2));
                    let reach = squares.sum::<f64>().sqrt() + self.moved[position / PANEL];
                    let own = self.positions[i] as usize == position;
                    assert!(own || f64::from(lower[position / PANEL]) <= reach, "row {i}, position {position}");
                }
            }
        }
    }

    fn host(codewords: &[f32], d: usize, isa: Isa) -> OnHost {
        OnHost::new(Matrix::new(codewords.to_vec(), codewords.len() / d, d).unwrap(), isa)
    }

    /// Labels by bounds, pass after pass, and those of passes without; and how many groups each looked into.
    fn follow(rows: &[f32], passes: &[Vec<f32>], d: usize, isa: Isa) -> Vec<usize> {
        let x = MatrixView::new(rows, rows.len() / d, d).unwrap();
        let n = x.rows();
        let mut bounds = None;
        let mut visits = Vec::new();
        for (pass, codewords) in passes.iter().enumerate() {
            let host = host(codewords, d, isa);
            let (mut labels, mut sq_distances) = (vec![0; n], vec![0.0; n]);
            let (mut expected, mut expected_sq) = (vec![0; n], vec![0.0; n]);
            host.assign(x, AssignOptions::default(), &mut expected, &mut expected_sq).unwrap();
            match &mut bounds {
                None => bounds = Bounds::new(&host, n),
                Some(bounds) => bounds.follow(&host),
            }
            let bounds = bounds.as_mut().unwrap();
            // Two blocks of rows, as those that are held in parts are passed.
            let (head, tail) = (n / 3, n - n / 3);
            let (x_head, x_tail) = (x.block(0..head), x.block(head..n));
            let a = bounds.assign(x_head, 0, &host, &mut labels[..head], &mut sq_distances[..head]);
            let b = bounds.assign(x_tail, head, &host, &mut labels[head..], &mut sq_distances[head..]);
            let stats = a.0 + b.0;
            assert_eq!(stats.first + stats.second + stats.f64 + stats.exact, (head + tail) as u64);
            visits.push(a.1 + b.1);
            assert_eq!(labels, expected, "{}, {d} dimensions, pass {pass}", isa.name());
            bounds.check(x);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&sq_distances), bits(&expected_sq), "{}, {d} dimensions, pass {pass}", isa.name());
        }
        visits
    }

    #[test]
    fn labels_follow_codewords_that_wander_jump_and_stay() {
        for isa in Isa::available() {
            for (n, k, d) in [(700, 256, 4), (400, 100, 8), (300, 33, 16), (500, 1024, 3), (200, 17, 1), (150, 272, 21)]
            {
                for scale in [1.0, 1e-3, 1e15] {
                    let mut numbers = Numbers((n + k + d) as u64);
                    let rows: Vec<f32> = numbers.some(n * d).iter().map(|value| value * scale).collect();
                    let mut codewords = numbers.some(k * d);
                    let mut passes = Vec::new();
                    for pass in 0..12 {
                        let step = [0.1, 0.03, 0.01, 0.0, 0.3, 0.001][pass % 6];
                        codewords.iter_mut().for_each(|value| *value += step * numbers.next());
                        if pass % 4 == 2 {
                            // One goes elsewhere, another onto a row.
                            codewords[5 * d..6 * d].copy_from_slice(&numbers.some(d));
                            let row: Vec<f32> = rows[3 * d..4 * d].iter().map(|value| value / scale).collect();
                            codewords[9 * d..10 * d].copy_from_slice(&row);
                        }
                        passes.push(codewords.iter().map(|value| value * scale).collect());
                    }
                    let visits = follow(&rows, &passes, d, isa);
                    assert_eq!(visits[0], n * groups(k), "all at first");
                    let rest = visits[1..].iter().sum::<usize>();
                    assert!(d > 4 || k < 100 || rest < (visits.len() - 1) * visits[0] * 3 / 4, "{visits:?}");
                }
            }
        }
    }

    #[test]
    fn rows_between_codewords_keep_the_lowest_index_while_these_move() {
        // Codewords on a grid, rows on grid points and halfway between; steps of a quarter keep sums exact.
        for isa in Isa::available() {
            for d in [1, 2, 5] {
                let mut numbers = Numbers(d as u64);
                let mut on_grid = |count: usize, range: f32| -> Vec<f32> {
                    (0..count * d).map(|_| (numbers.next() * range).round() / 2.0).collect()
                };
                let rows = on_grid(300, 9.0);
                let mut distinct: Vec<f32> = (0..60).flat_map(|j| vec![j as f32 / 2.0 - 15.0; d]).collect();
                let mut passes = Vec::new();
                for pass in 0..10 {
                    let j = pass * 7 % 60;
                    distinct[j * d] += 0.25;
                    distinct[(59 - j) * d] -= if pass % 2 == 0 { 0.25 } else { 0.0 };
                    passes.push(distinct.clone());
                }
                follow(&rows, &passes, d, isa);
            }
        }
    }

    #[test]
    fn limits_hold_at_the_ends_of_f32() {
        for isa in Isa::available() {
            for (scale, drift) in [(1e-22f32, 1e-24f32), (1e-38, 1e-39), (1e18, 1e16), (3e37, 1e36), (1e-45, 1e-45)] {
                let (n, k, d) = (120, 40, 6);
                let mut numbers = Numbers(7);
                let mut scaled = |count: usize, by: f32| -> Vec<f32> {
                    numbers.some(count).iter().map(|value| 3.0 * value * by).collect()
                };
                let rows = scaled(n * d, scale);
                let mut codewords = scaled(k * d, scale);
                let mut passes = Vec::new();
                for _ in 0..8 {
                    let steps = scaled(k * d, drift);
                    codewords.iter_mut().zip(steps).for_each(|(value, step)| *value += step);
                    passes.push(codewords.clone());
                }
                follow(&rows, &passes, d, isa);
            }
        }
    }

    #[test]
    fn codewords_whose_sums_overflowed_are_seen_when_they_come_near() {
        let near = |j: usize| vec![j as f32, 0.5];
        let far = |j: usize| vec![4e19 + 1e15 * j as f32, -2e19];
        let rows: Vec<f32> = (0..90).flat_map(|i| [i as f32 / 3.0, 0.0]).collect();
        let first: Vec<f32> = (0..32).flat_map(|j| if j % 2 == 0 { near(j) } else { far(j) }).collect();
        let then: Vec<f32> = (0..32).flat_map(near).collect();
        for isa in Isa::available() {
            follow(&rows, &[first.clone(), then.clone(), first.clone()], 2, isa);
        }
    }

    #[test]
    fn sums_that_round_up_at_every_step_are_covered() {
        // Squares a little above half of what an f32 at 1 can tell: each addition rounds up, to twice what it adds. So the sum
        // of the codeword of label 3 is 1.2e-4 too large, and that of label 20, with a single square, is not. In two dimensions
        // both are right, and so nearly are limits.
        for d in [2, MAX_D] {
            let k = 32;
            let step = (1.01 * 2f32.powi(-24)).sqrt();
            let mut row = vec![step; d];
            (row[0], row[1]) = (0.0, 0.0);
            let real = 1.0 + (d - 2) as f64 * f64::from(step).powi(2);
            let codewords = |sq_distance: f64| -> Vec<f32> {
                let codeword = |j: usize| {
                    let mut codeword = if j < 16 { vec![0.0; d] } else { row.clone() };
                    codeword[0] = if j < 16 { -1.0 } else { 3.0 };
                    codeword[1] = 0.2 + 0.1 * (j % 16) as f32;
                    match j {
                        3 => codeword[1] = 0.0,
                        20 => (codeword[0], codeword[1]) = (sq_distance.sqrt() as f32, 0.0),
                        _ => {}
                    }
                    codeword
                };
                (0..k).flat_map(codeword).collect()
            };
            let near = |by: f64| codewords(real * (1.0 + by));
            for isa in Isa::available() {
                // Sought among all; then label 20, while it is the nearest, and 3 again, by sums and by a bound that are too large.
                follow(&row, &[near(3e-5)], d, isa);
                follow(&row, &[near(-1e-5), near(-1e-5), near(3e-5)], d, isa);
                let visits = follow(&row, &[near(-1e-2), near(-9e-3)], d, isa);
                assert_eq!(visits, [2, 0], "the row stays: all others are farther than bounds have to know");
            }
        }
    }

    #[test]
    fn sizes_without_bounds_have_none() {
        let new = |k: usize, d: usize| Bounds::new(&host(&Numbers(1).some(k * d), d, Isa::Portable), 10).is_some();
        assert!(new(17, 2) && new(1024, 1) && new(20, MAX_D));
        assert!(!new(16, 2) && !new(1025, 1) && !new(20, MAX_D + 1));
    }
}
