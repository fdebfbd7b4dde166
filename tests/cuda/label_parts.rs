//! Labels of rows of few dimensions in one launch, by bounds that tensor cores compute: those of the exact oracle, at every
//! depth, for sums as bad as the bound allows, where many codewords are as near, and where scales are far apart.

use crate::common::{Numbers, assert_same_labels, matrix};
use crate::filter::{assert_exact, gaussians, on};
use crate::simulated::{self, Machine, pass_on_each};
use codeword::{AssignOptions, AssignStats, Codebook, Device, Matrix, assign, bf16, f16};

/// Both kinds of tensor cores, as their models say, and as badly as the bound allows.
fn machines() -> [Machine; 3] {
    let tensor = || Machine::new().variable("CODEWORD_CUDA_GEMM", "tensor");
    [
        tensor(),
        tensor().set("CAPABILITY", 90).seed(1).set("CHECK", 0),
        tensor().set("CAPABILITY", 86).set("TENSOR", "hostile").seed(2).set("CHECK", 0),
    ]
}

#[test]
fn every_depth_and_number_of_codewords() {
    pass_on_each(machines(), "label_parts::every_depth_and_number_of_codewords", || {
        let mut numbers = Numbers::new(131);
        // Dimensions go by eights, with one more that makes a bound; 16 codewords pass by at a time and 128 are noted in a word,
        // 32 rows are a warp's and 128 a block's.
        for (n, k, d) in [
            (1, 2, 1),
            (33, 15, 2),
            (31, 16, 3),
            (32, 17, 10),
            (129, 33, 11),
            (70, 40, 12),
            (65, 31, 16),
            (40, 64, 17),
            (37, 48, 8),
            (45, 128, 20),
            (40, 129, 24),
            (31, 33, 25),
            (128, 20, 27),
            (34, 48, 28),
            (5, 130, 32),
            (3, 1023, 9),
            (2, 1024, 4),
        ] {
            let name = format!("{n} x {k} x {d}");
            let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
            assert_exact(&name, x.view(), e.view());
            let rounded: Vec<f16> = x.as_slice().iter().map(|&value| f16::from_f32(value)).collect();
            assert_exact(&format!("{name}, f16"), matrix(rounded, n, d).view(), e.view());
            let rounded: Vec<bf16> = x.as_slice().iter().map(|&value| bf16::from_f32(value)).collect();
            assert_exact(&format!("{name}, bf16"), matrix(rounded, n, d).view(), e.view());
        }
    });
}

/// Rows at the middle of two codewords, and beside it by parts of 2^-4 to 2^-23: a bound that is too narrow by anything that
/// rounds takes the wrong one of them. `reach` is how far apart the lengths of the codewords lie, in binary digits.
fn between(numbers: &mut Numbers, n: usize, k: usize, d: usize, reach: usize) -> (Matrix<f32>, Matrix<f32>) {
    let mut e = numbers.gaussians(k * d);
    for codeword in e.chunks_exact_mut(d) {
        let scale = 2f32.powi(-(numbers.below(reach + 1) as i32));
        codeword.iter_mut().for_each(|value| *value *= scale);
    }
    let mut x = Vec::new();
    for i in 0..n {
        let (a, b) = (numbers.below(k), numbers.below(k));
        let share = 0.5 + 2f32.powi(-4 - (i % 20) as i32) * numbers.uniform();
        x.extend((0..d).map(|t| e[a * d + t] * share + e[b * d + t] * (1.0 - share)));
    }
    (matrix(x, n, d), matrix(e, k, d))
}

/// Rows as far from one codeword as from another beside it, but for parts of 2^-6 to 2^-23. Codewords come with their
/// opposites, so that nothing is centred; of rows and codewords one side is of few digits, which round nothing: what the
/// other one rounds has to be accounted for.
fn one_side_rounds(numbers: &mut Numbers, d: usize, rows_round: bool) -> (Matrix<f32>, Matrix<f32>) {
    let (mut x, mut e) = (Vec::new(), Vec::new());
    let few = |numbers: &mut Numbers| (numbers.gaussian() * 16.0).round() / 16.0;
    for i in 0..60 {
        let near = 2f32.powi(-6 - i % 18) * (numbers.uniform() - 0.5);
        let middle: Vec<f32> = (0..d).map(|_| few(numbers)).collect();
        if rows_round {
            let apart: Vec<f32> =
                (0..d).map(|t| if (t + i as usize).is_multiple_of(3) { 0.125 } else { -0.0625 }).collect();
            let off: Vec<f32> = numbers.gaussians(d).iter().map(|value| value * 0.1).collect();
            // Off the middle, but as far from both.
            let products = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let along = near - products(&off, &apart) / products(&apart, &apart);
            x.extend(middle.iter().zip(&apart).zip(&off).map(|((m, a), off)| m + off + a * along));
            e.extend(middle.iter().zip(&apart).map(|(m, a)| m + a));
            e.extend(middle.iter().zip(&apart).map(|(m, a)| m - a));
        } else {
            let apart: Vec<f32> = numbers.gaussians(d).iter().map(|value| value * 0.1).collect();
            e.extend(middle.iter().zip(&apart).map(|(m, a)| m + a));
            e.extend(middle.iter().zip(apart.iter().rev()).map(|(m, a)| m + a * (1.0 + near)));
            x.extend(middle);
        }
    }
    let opposites: Vec<f32> = e.iter().map(|value| -value).collect();
    e.extend(opposites);
    (matrix(x, 60, d), matrix(e, 240, d))
}

/// Rows much nearer to the centre than the codewords, which are all as long but for parts of 2^-8 to 2^-23: their lengths
/// decide.
fn lengths_decide(numbers: &mut Numbers, d: usize) -> (Matrix<f32>, Matrix<f32>) {
    let first = numbers.gaussians(d);
    let (k, mut e) = (32, Vec::new());
    for j in 0..k {
        let start = e.len();
        e.extend((0..d).map(|t| first[(t + j) % d] * if (j * 5) >> (t % 5) & 1 == 1 { -1.0 } else { 1.0 }));
        e[start] *= 1.0 + 2f32.powi(-8 - (j % 16) as i32);
    }
    // With their opposites the centre is zero, where the rows are.
    let opposites: Vec<f32> = e.iter().map(|value| -value).collect();
    e.extend(opposites);
    let x = (0..40 * d).map(|i| numbers.gaussian() * [0.0, 1e-4, 1e-6, 1e-9][i / d % 4]).collect();
    (matrix(x, 40, d), matrix(e, 2 * k, d))
}

/// Two codewords and rows so close to their middle, in every direction, that what decides is less than what a sum with half
/// their squared lengths in it rounds.
fn lengths_round(numbers: &mut Numbers, d: usize) -> (Matrix<f32>, Matrix<f32>) {
    let e = numbers.gaussians(2 * d);
    let apart: Vec<f32> = (0..d).map(|t| e[t] - e[d + t]).collect();
    let products = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut x = Vec::new();
    for i in 0..400 {
        let across: Vec<f32> = numbers.gaussians(d).iter().map(|value| value * 2f32.powi(-13 - i % 7)).collect();
        let side = if i % 2 == 0 { 1.0 } else { -1.0 };
        let along = side * 2f32.powi(-20 - i / 14 % 7) - products(&across, &apart) / products(&apart, &apart);
        x.extend((0..d).map(|t| (e[t] + e[d + t]) / 2.0 + across[t] + apart[t] * along));
    }
    (matrix(x, 400, d), matrix(e, 2, d))
}

/// Rows off the middle of two codewords, at a right angle, far more than these are apart: what rows round is then large beside
/// what tells the two apart.
fn off_the_middle() -> (Matrix<f32>, Matrix<f32>) {
    let (a, b) = ([0.8125f32, 0.3125, -1.3125], [0.875f32, 0.4375, -0.5625]);
    let mut numbers = Numbers::new(135);
    let mut x = Vec::new();
    for _ in 0..400 {
        let off: Vec<f32> = numbers.gaussians(3).iter().map(|value| value * 2.0).collect();
        let apart: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        let share = off.iter().zip(&apart).map(|(o, a)| o * a).sum::<f32>() / apart.iter().map(|a| a * a).sum::<f32>();
        x.extend((0..3).map(|t| (a[t] + b[t]) / 2.0 + off[t] - share * apart[t]));
    }
    let e = [a, b, a.map(|value| -value), b.map(|value| -value)].concat();
    (matrix(x, 400, 3), matrix(e, 4, 3))
}

#[test]
fn rows_next_to_the_middle_of_two_codewords_get_the_nearer_one() {
    pass_on_each(machines(), "label_parts::rows_next_to_the_middle_of_two_codewords_get_the_nearer_one", || {
        let mut numbers = Numbers::new(132);
        let mut sum = AssignStats::default();
        for (n, k, d, reach) in [(400, 2, 16, 0), (300, 3, 7, 0), (200, 8, 32, 0), (300, 3, 11, 6), (200, 5, 20, 12)] {
            let (x, e) = between(&mut numbers, n, k, d, reach);
            sum += assert_exact(&format!("{n} x {k} x {d}, {reach}"), x.view(), e.view());
        }
        let (x, e) = off_the_middle();
        sum += assert_exact("off the middle", x.view(), e.view());
        for (d, rows_round) in [(4, false), (9, true), (9, false), (16, true), (16, false), (31, true), (31, false)] {
            let (x, e) = one_side_rounds(&mut numbers, d, rows_round);
            sum += assert_exact(&format!("{d}, {rows_round}"), x.view(), e.view());
            let (x, e) = lengths_decide(&mut numbers, d);
            assert_exact(&format!("lengths, {d}"), x.view(), e.view());
            let (x, e) = lengths_round(&mut numbers, d);
            assert_exact(&format!("lengths that round, {d}"), x.view(), e.view());
        }
        assert!(sum.first > 0 && sum.f64 > 0, "{sum:?}");
    });
}

#[test]
fn scales_far_apart_leave_the_labels_as_they_are() {
    pass_on_each(machines(), "label_parts::scales_far_apart_leave_the_labels_as_they_are", || {
        let mut numbers = Numbers::new(133);
        // Of ten codewords all and what fills the last sixteen up fit a list.
        for (k, d) in [(20, 4), (20, 16), (10, 16), (20, 30)] {
            let n = 64;
            let base = gaussians(&mut numbers, k, d);
            // Rows from far below the codewords to far beyond what one scale holds, the largest f32 among them.
            let scale = |i: usize| 2f32.powi([-60, -20, -3, 0, 1, 7, 28, 29, 30, 31, 60, 110, 125][i % 13]);
            let x: Vec<f32> =
                (0..n * d).map(|i| numbers.gaussian() * scale(i / d)).map(|v| v.clamp(-3.4e38, 3.4e38)).collect();
            let x = matrix(x, n, d);
            assert_exact(&format!("rows, {d}"), x.view(), base.view());
            for power in [-120, -100, 100, 120, 126] {
                let e: Vec<f32> =
                    base.as_slice().iter().map(|v| (v * 2f32.powi(power)).clamp(-3.4e38, 3.4e38)).collect();
                let e = matrix(e, k, d);
                assert_exact(&format!("codewords by 2^{power}, {d}"), x.view(), e.view());
                let beside =
                    numbers.gaussians(n * d).iter().map(|v| (v * 2f32.powi(power)).clamp(-3.4e38, 3.4e38)).collect();
                assert_exact(&format!("both by 2^{power}, {d}"), matrix(beside, n, d).view(), e.view());
            }
            // One long codeword, and one far off all others, which moves the centre.
            let mut e = base.as_slice().to_vec();
            e[5 * d..6 * d].iter_mut().for_each(|value| *value *= 4096.0);
            assert_exact(&format!("a long codeword, {d}"), x.view(), matrix(e.clone(), k, d).view());
            e.iter_mut().for_each(|value| *value += 1e6);
            assert_exact(&format!("far from zero, {d}"), x.view(), matrix(e, k, d).view());
        }
    });
}

#[test]
fn the_longest_codewords_there_can_be_beside_their_scale() {
    pass_on_each(machines(), "label_parts::the_longest_codewords_there_can_be_beside_their_scale", || {
        // Half the squared norm is more than an f16 holds of it.
        let most = f32::from_bits(2f32.to_bits() - 1);
        for d in [29, 31, 32] {
            let e: Vec<f32> =
                (0..6 * d).map(|i| if i / d == 0 || (i + i / d) % (i / d + 1) == 0 { most } else { -most }).collect();
            let opposites: Vec<f32> = e.iter().map(|value| -value).collect();
            let e = matrix([e, opposites].concat(), 12, d);
            assert_exact(&format!("{d}"), e.view(), e.view());
        }
    });
}

#[test]
fn more_codewords_as_near_than_a_list_holds_are_told_apart() {
    pass_on_each(machines(), "label_parts::more_codewords_as_near_than_a_list_holds_are_told_apart", || {
        let mut numbers = Numbers::new(134);
        // Corners of a cube around some rows: all are equally near, and the lowest wins; others are near one of them.
        for (k, d) in [(3, 2), (17, 5), (40, 10), (200, 12), (600, 20)] {
            let corner = |j: usize, t: usize| if (j * 7 + 3) >> (t % 10) & 1 == 1 { 1.0f32 } else { -1.0 };
            let e = matrix((0..k * d).map(|i| corner(i / d, i % d)).collect(), k, d);
            let mut x = vec![0.0; 40 * d];
            for (i, row) in x.chunks_exact_mut(d).enumerate() {
                let all = if i % 2 == 0 { 0.0 } else { 0.75 };
                row.iter_mut().for_each(|value| *value = all * (numbers.below(3) as f32 - 1.0));
            }
            let stats = assert_exact(&format!("{k} corners, {d}"), matrix(x, 40, d).view(), e.view());
            assert!(k < 17 || stats.exact >= 20, "{stats:?}");
        }
    });
}

/// Blocks that take rows in turn, rows of each kind in each.
#[test]
fn rows_of_one_turn_say_nothing_of_those_of_the_next() {
    let small = Machine::new().variable("CODEWORD_CUDA_GEMM", "tensor").set("MULTIPROCESSORS", 1);
    let machines = [small.clone(), small.clone().set("CAPABILITY", 90).seed(5), small.seed(6)];
    pass_on_each(machines, "label_parts::rows_of_one_turn_say_nothing_of_those_of_the_next", || {
        let mut numbers = Numbers::new(136);
        // Six blocks at most, and five of many dimensions.
        for (n, k, d) in [(2600, 12, 3), (1700, 130, 10), (1400, 40, 18)] {
            let corner = |j: usize, t: usize| if (j * 7 + 3) >> (t % 10) & 1 == 1 { 1.0f32 } else { -1.0 };
            let e = matrix((0..k * d).map(|i| corner(i / d, i % d)).collect(), k, d);
            let mut x = Vec::new();
            for _ in 0..n {
                let at = numbers.below(k);
                // As near to all, to some, to one; too long for the scale.
                let (share, long) = [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.0, 1e30)][numbers.below(4)];
                x.extend((0..d).map(|t| (e.view().row(at)[t] * share + numbers.gaussian() * 0.25 * share) * long));
            }
            let stats = assert_exact(&format!("{n} x {k} x {d}"), matrix(x, n, d).view(), e.view());
            assert!(stats.first > 300 && stats.f64 + stats.exact > 300, "{stats:?}");
        }
    });
}

#[test]
fn one_launch_serves_as_far_as_its_shared_memory() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let machine = Machine::new().variable("CODEWORD_CUDA_GEMM", "tensor").set("TRACE", trace.display()).set("CHECK", 0);
    let output = machine.run("label_parts::one_launch_serves_as_far_as_its_shared_memory", || {
        let mut numbers = Numbers::new(137);
        let trace = || std::fs::read_to_string(std::env::var("CODEWORD_SIM_TRACE").unwrap()).unwrap_or_default();
        for (k, d, entry) in [
            (2, 1, Some("label_parts_f32")),
            (16, 1, Some("label_parts_f32")),
            (17, 1, None),
            (256, 2, Some("label_parts_f32")),
            (257, 2, None),
            (1024, 16, Some("label_parts_f32")),
            (1024, 24, Some("label_parts_wide_f32")),
            (1024, 25, None),
            (909, 32, Some("label_parts_wide_f32")),
            (910, 32, None),
            (20, 33, None),
        ] {
            let before = trace().lines().count();
            let (x, e) = (gaussians(&mut numbers, 2, d), gaussians(&mut numbers, k, d));
            assert_exact(&format!("{k} x {d}"), x.view(), e.view());
            let trace = trace();
            let launched = |name: &str| {
                let lines = trace.lines().skip(before).filter(|line| line.starts_with("submit "));
                lines.flat_map(|line| line.split(' ')).filter(|&word| word.ends_with(name)).count()
            };
            let names = ["label_parts_f32", "label_parts_wide_f32"];
            let expected = names.map(|name| usize::from(entry == Some(name)));
            assert_eq!(names.map(launched), expected, "{k} x {d}");
        }
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

/// Registers let a multiprocessor hold six blocks; the shared memory of some holds fewer. Rows beyond theirs wait for a turn.
#[test]
fn as_many_blocks_run_as_a_multiprocessor_holds() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // 164 KiB and 100 KiB of shared memory, of which a block takes 24.4 KiB.
    for (capability, blocks) in [("80", 6), ("86", 4)] {
        let trace = folder.path().join(capability);
        let machine = Machine::new().variable("CODEWORD_CUDA_GEMM", "tensor").set("TRACE", trace.display());
        let machine = machine.set("MULTIPROCESSORS", 1).set("CAPABILITY", capability).set("CHECK", 0);
        let output = machine.run("label_parts::as_many_blocks_run_as_a_multiprocessor_holds", || {
            let mut numbers = Numbers::new(138);
            // 24 turns.
            let (x, e) = (gaussians(&mut numbers, 24 * 128, 16), gaussians(&mut numbers, 256, 16));
            let on_cpu = Codebook::new(e.view(), &Device::cpu()).unwrap();
            let [got, expected] =
                [&on(e.view()), &on_cpu].map(|it| assign(x.view(), it, AssignOptions::default()).unwrap().labels);
            assert_same_labels("of all turns", &got, &expected, 1);
        });
        assert!(output.status.success(), "{}", simulated::text(&output));
        let trace = std::fs::read_to_string(trace).unwrap();
        let of_one = format!("launch label_parts_f32 grid=1,{blocks},1 ");
        assert!(trace.contains(&of_one), "{of_one} is not in\n{trace}");
    }
}
