//! What is left of rows that tensor cores leave open: the kernels that list codewords and compare them launched alone, with
//! fewer blocks than there is work, so that each takes several turns.

use crate::alone::{open, threads};
use crate::common::{Numbers, sq_l2};
use crate::simulated::{Machine, pass_on_each};
use crate::tiles::in_tiles;
use codeword::backend::cuda::shapes::{SHORT_LIST, SHORT_LIST_WARPS, TENSOR_THREADS};
use codeword::cuda::cudarc::driver::PushKernelArg;
use codeword::f16;

/// Codewords that a list holds.
const ROOM: usize = SHORT_LIST as usize;

#[test]
fn every_codeword_whose_score_reaches_the_threshold_is_listed_whoever_takes_the_tile() {
    let machines = [Machine::new(), Machine::new().seed(1)];
    let name = "lists::every_codeword_whose_score_reaches_the_threshold_is_listed_whoever_takes_the_tile";
    pass_on_each(machines, name, || {
        let (stream, kernel) = open("assign_tensor", "assign_tensor_list_f16");
        let mut numbers = Numbers::new(91);
        // Three tiles of open rows, among others, and three of codewords; more stages than there is room for.
        let (n, open_rows, m, width) = (330usize, 300usize, 300usize, 112usize);
        let padded = m.next_multiple_of(128);
        let (rows, codewords) = (numbers.integers(n * width, 3), numbers.integers(m * width, 3));
        let halves: Vec<f32> =
            (0..padded).map(|j| if j < m { numbers.below(200) as f32 } else { f32::INFINITY }).collect();
        // Whole numbers: scores are exact, z.e - half. Bounds count nothing.
        let score = |i: usize, j: usize| {
            let products = rows[i * width..][..width].iter().zip(&codewords[j * width..][..width]);
            products.map(|(z, e)| z * e).sum::<f32>() - halves[j]
        };
        let again: Vec<u32> = (0..open_rows).map(|slot| ((slot * 7 + 3) % n) as u32).collect();
        let mut thresholds = Vec::new();
        let mut expected = Vec::new();
        for (slot, &row) in again.iter().enumerate() {
            let mut scores: Vec<f32> = (0..m).map(|j| score(row as usize, j)).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            // Of one list in ten more than it has room for; of one in eleven nothing is known.
            let reached = if slot % 10 == 9 { 40 } else { 1 + slot % 5 };
            let threshold = if slot % 11 == 10 { f32::NAN } else { scores[reached - 1] };
            thresholds.push(threshold);
            expected.push((0..m as u32).filter(|&j| score(row as usize, j as usize) >= threshold).collect::<Vec<_>>());
        }
        let facts: Vec<f32> = (0..n).flat_map(|_| [0.0, 1.0, 0.0, -1.0]).collect();
        let bits = |values: &[f32]| values.iter().map(|&value| f16::from_f32(value).to_bits()).collect::<Vec<u16>>();
        let [rows, codewords] =
            [&rows, &codewords].map(|values| stream.clone_htod(&in_tiles(&bits(values), width)).unwrap());
        let [facts, halves, thresholds] = [&facts, &halves, &thresholds].map(|it| stream.clone_htod(it).unwrap());
        let zeros = stream.alloc_zeros::<f32>(padded).unwrap();
        let (again, count) = (stream.clone_htod(&again).unwrap(), stream.clone_htod(&[open_rows as u32]).unwrap());
        let (m32, width32) = (m as u32, width as u32);
        for blocks in [1, 2, 7, 20] {
            let mut counts = stream.alloc_zeros::<u32>(open_rows).unwrap();
            let mut positions = stream.alloc_zeros::<u32>(open_rows * ROOM).unwrap();
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&rows).arg(&facts).arg(&codewords).arg(&zeros).arg(&zeros).arg(&halves);
            launch.arg(&again).arg(&count).arg(&thresholds).arg(&mut counts).arg(&mut positions);
            launch.arg(&m32).arg(&width32);
            // SAFETY: the arguments are those of assign_tensor_list_f16, of the sizes that its header names; any grid.
            unsafe { launch.launch(threads(blocks, TENSOR_THREADS)) }.unwrap();
            let (counts, positions) = (stream.clone_dtoh(&counts).unwrap(), stream.clone_dtoh(&positions).unwrap());
            for (slot, expected) in expected.iter().enumerate() {
                assert_eq!(counts[slot] as usize, expected.len(), "{blocks} blocks, list {slot}");
                let mut listed = positions[slot * ROOM..][..expected.len().min(ROOM)].to_vec();
                listed.sort_unstable();
                let all = listed.iter().all(|position| expected.contains(position));
                assert!(all && listed.windows(2).all(|pair| pair[0] < pair[1]), "{blocks} blocks, list {slot}");
            }
        }
    });
}

#[test]
fn lists_are_settled_by_the_nearest_the_lowest_of_equals_and_what_is_too_much_is_left() {
    let name = "lists::lists_are_settled_by_the_nearest_the_lowest_of_equals_and_what_is_too_much_is_left";
    pass_on_each([Machine::new(), Machine::new().seed(1)], name, || {
        let (stream, kernel) = open("short_list", "short_list_f32");
        let mut numbers = Numbers::new(92);
        let (n, k, d) = (90usize, 60usize, 37usize);
        // Few different whole numbers, of which many distances are equal; the label is the position and 5 more.
        let (z, e) = (numbers.integers(n * d, 1), numbers.integers((k + 5) * d, 1));
        let of_codewords: Vec<u32> = (5..k as u32 + 5).collect();
        let again: Vec<u32> = (0..n as u32).rev().collect();
        let distance = |row: usize, position: u32| sq_l2(&z[row * d..][..d], &e[(position as usize + 5) * d..][..d]);
        let (mut counts, mut positions) = (Vec::new(), vec![0u32; n * ROOM]);
        let (mut expected, mut left, mut tiers) = (vec![7u32; n], Vec::new(), [0u64; 3]);
        for (slot, &row) in again.iter().enumerate() {
            let count = [2, 1, 0, 5, 33, 32, 3][slot % 7];
            // Different positions, in no order.
            let listed: Vec<u32> = (0..count.min(ROOM)).map(|c| ((slot * 11 + c * 23) % k) as u32).collect();
            positions[slot * ROOM..][..listed.len()].copy_from_slice(&listed);
            counts.push(count as u32);
            let mut ranked: Vec<(u64, u32)> =
                listed.iter().map(|&it| (distance(row as usize, it) as u64, it)).collect();
            ranked.sort_unstable();
            match ranked[..] {
                [] => left.push(row),
                _ if count > ROOM => left.push(row),
                [(least, nearest), ..] => {
                    expected[row as usize] = nearest + 5;
                    // One codeword left, f64 sums, and exact ones where two are as near.
                    tiers[ranked.get(1).map_or(0, |&(second, _)| if second > least { 1 } else { 2 })] += 1;
                }
            }
        }
        let [z, e] = [&z, &e].map(|values| stream.clone_htod(values).unwrap());
        let [of_codewords, again, counts, positions, open_rows] =
            [&of_codewords, &again, &counts, &positions, &vec![n as u32]].map(|it| stream.clone_htod(it).unwrap());
        let (stride, d32, relative) = (d as u64, d as u32, (d as f64 + 4.0) * 2f64.powi(-53));
        assert!(tiers.iter().all(|&rows| rows > 0), "{tiers:?}");
        for blocks in [1, 3] {
            let mut labels = stream.clone_htod(&vec![7u32; n]).unwrap();
            let (mut left_rows, mut left_count) =
                (stream.alloc_zeros::<u32>(n).unwrap(), stream.alloc_zeros::<u32>(1).unwrap());
            let mut status = stream.alloc_zeros::<u64>(6).unwrap();
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&z).arg(&stride).arg(&e).arg(&of_codewords).arg(&again).arg(&open_rows);
            launch.arg(&counts).arg(&positions).arg(&mut labels).arg(&mut left_rows).arg(&mut left_count);
            launch.arg(&mut status).arg(&d32).arg(&relative);
            // SAFETY: the arguments are those of short_list_f32, of the sizes that its header names; any grid.
            unsafe { launch.launch(threads(blocks, 32 * SHORT_LIST_WARPS)) }.unwrap();
            assert_eq!(stream.clone_dtoh(&labels).unwrap(), expected, "{blocks} blocks");
            let mut got = stream.clone_dtoh(&left_rows).unwrap();
            got.truncate(stream.clone_dtoh(&left_count).unwrap()[0] as usize);
            got.sort_unstable();
            left.sort_unstable();
            assert_eq!(got, left, "{blocks} blocks");
            assert_eq!(stream.clone_dtoh(&status).unwrap()[3..], tiers, "{blocks} blocks");
        }
    });
}
