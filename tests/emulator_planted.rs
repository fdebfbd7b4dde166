//! Bugs planted in copies of the real kernels, each of a kind that a GPU would let pass more often than not: the
//! simulated driver names it, or the bits come out wrong where the tests of the kernel look. Where the text that a bug
//! replaces is no longer in its file, the test fails: plant it elsewhere.
#![cfg(all(feature = "cuda", target_os = "linux"))]

mod common;
#[path = "common/simulated/mod.rs"]
mod simulated;

use codeword::backend::cuda::ptx::KERNELS;
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use codeword::cuda::{MatrixView, Workspace};
use codeword::{
    AssignOptions, Codebook, Device, Error, Matrix, Precision, ProductQuantizer, assign, f16, metrics, top_k,
};
use common::{Numbers, assert_same_bits, assert_same_labels, matrix};
use simulated::Machine;
use std::fs;
use std::path::Path;

/// A machine that runs a copy of kernels/ in which `from`, which is there once, has become `to`.
fn planted(test: &str, file: &str, from: &str, to: &str) -> Machine {
    let folder = simulated::built_in().join("planted").join(test);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    // Tests run in the root of the package.
    for entry in fs::read_dir(Path::new("kernels")).expect("the kernels are there").flatten() {
        let name = entry.file_name();
        if !entry.path().is_file() {
            continue;
        }
        let mut text = fs::read_to_string(entry.path()).expect("a source can be read");
        if name == file {
            let count = text.matches(from).count();
            assert_eq!(count, 1, "kernels/{file} has {count} times, not once: {from}");
            text = text.replace(from, to);
        }
        let copy = folder.join(name);
        // Left alone where it is the same: a process beside this one may be reading it.
        if fs::read_to_string(&copy).ok().as_ref() != Some(&text) {
            fs::write(copy, text).expect("the target folder can be written");
        }
    }
    Machine::new().set("KERNELS", folder.display())
}

/// The body fails on that machine with all of `words`, and passes on one with the kernels as they are.
fn gives_wrong_bits(machine: &Machine, test: &str, words: &[&str], body: impl Fn()) {
    if !simulated::is_available() {
        return;
    }
    let output = machine.run(test, &body);
    let text = simulated::text(&output);
    assert!(!output.status.success() && words.iter().all(|it| text.contains(it)), "{words:?} are not in\n{text}");
    Machine::new().pass(test, body);
}

/// The driver finds it on that machine, in a line with all of `words`, and nothing with the kernels as they are.
fn is_found(machine: &Machine, test: &str, words: &[&str], body: impl Fn()) {
    machine.find(test, words, &body);
    Machine::new().pass(test, body);
}

fn cuda() -> Device {
    Device::cuda(0).expect("the simulated device opens")
}

fn gaussians(n: usize, d: usize) -> Matrix<f32> {
    matrix(Numbers::new((n * 1000 + d) as u64).gaussians(n * d), n, d)
}

/// Assigns, and expects what exact arithmetic gives. What the device refuses is for the driver to name.
fn assign_exactly(x: &Matrix<f32>, e: &Matrix<f32>) {
    let outcome =
        Codebook::new(e.view(), &cuda()).and_then(|codebook| assign(x.view(), &codebook, AssignOptions::default()));
    let Ok(got) = outcome else { return };
    let (labels, sq_distances) = reference::nearest(x.view(), e.view());
    assert_same_labels("planted", &got.labels, &labels, 1);
    assert_same_bits("planted", &got.sq_distances, &sq_distances);
}

/// Corners of a cube around zero rows: only exact sums tell, and the lowest index wins.
fn equidistant(k: usize) -> (Matrix<f32>, Matrix<f32>) {
    let corners = (0..k).flat_map(|j| (0..10).map(move |t| if (j * 7 + 3) >> t & 1 == 1 { 1.0f32 } else { -1.0 }));
    (matrix(vec![0.0; 30], 3, 10), matrix(corners.collect(), k, 10))
}

#[test]
fn a_tail_that_is_off_by_one() {
    const NAME: &str = "a_tail_that_is_off_by_one";
    let machine = planted(NAME, "distance.cu", "is_row = row[i] < n;", "is_row = row[i] <= n;");
    is_found(&machine, NAME, &["kernel distance_f32", "reads 4 bytes at", "out of bounds"], || {
        assign_exactly(&gaussians(65, 5), &gaussians(7, 5));
    });
}

#[test]
fn a_missing_barrier() {
    const NAME: &str = "a_missing_barrier";
    let barrier = "__syncthreads();  // Nobody reads the slice any more";
    let machine = planted(NAME, "score_tile.cuh", barrier, "// Nobody reads the slice any more");
    is_found(&machine, NAME, &["kernel assign_f32", "shared memory", "no barrier between"], || {
        assign_exactly(&gaussians(20, 40), &gaussians(9, 40));
    });
}

/// A GPU whose filter pass takes its products by wgmma.
fn hopper(machine: Machine) -> Machine {
    machine.set("CAPABILITY", 90).variable("CODEWORD_CUDA_GEMM", "tensor")
}

/// Found in the pass of compute capability 9.0.
fn is_found_by_wgmma(test: &str, (n, k, d): (usize, usize, usize), from: &str, to: &str, words: &[&str]) {
    let body = || assign_exactly(&gaussians(n, d), &gaussians(k, d));
    hopper(planted(test, "assign_tensor_sm90a.cu", from, to)).find(test, words, body);
    hopper(Machine::new()).pass(test, body);
}

// So many codewords that each block passes by more of them than have their terms there at once.
#[test]
fn terms_that_are_given_back_while_lanes_read_them() {
    let words = ["kernel assign_tensor_f16", "writes shared memory", "no barrier between"];
    let meeting = "__syncwarp();  // All lanes have read their terms.";
    is_found_by_wgmma("terms_that_are_given_back_while_lanes_read_them", (2, 70_000, 10), meeting, "", &words);
}

#[test]
fn a_stage_that_is_given_back_while_products_read_it() {
    let words =
        ["kernel assign_tensor_f16", "writes shared memory", "a product by wgmma reads which was not waited for"];
    is_found_by_wgmma(
        "a_stage_that_is_given_back_while_products_read_it",
        (140, 300, 600),
        "wgmma_wait<1>();",
        "wgmma_wait<2>();",
        &words,
    );
}

#[test]
fn a_turn_that_is_never_given() {
    let words = ["kernel assign_tensor_f16", "waits", "for ever"];
    let gives = "mbarrier_arrive_if(is_first && block.rows_stay, block.barrier(WGMMA_TURN_AT, 1 - group));";
    is_found_by_wgmma("a_turn_that_is_never_given", (140, 900, 70), gives, "", &words);
}

#[test]
fn a_barrier_that_not_all_threads_reach() {
    const NAME: &str = "a_barrier_that_not_all_threads_reach";
    let barrier = "__syncthreads();  // All labels of the block are counted.";
    let machine = planted(NAME, "histogram.cu", barrier, "if (threadIdx.x < n) __syncthreads();");
    is_found(&machine, NAME, &["kernel histogram_u32", "waits at __syncthreads", "but thread"], count_labels);
}

/// Usage of three codewords, counted on the device.
fn count_labels() {
    let e = gaussians(3, 2);
    let x = gaussians(5, 2);
    let labels = [2u32, 0, 2, 2, 1];
    let Ok(codebook) = Codebook::new(e.view(), &cuda()) else { return };
    let Device::Cuda(context) = cuda() else { unreachable!("it was asked for") };
    let stream = context.new_stream().unwrap();
    let (on_device, codes) = (stream.clone_htod(x.as_slice()).unwrap(), stream.clone_htod(&labels).unwrap());
    let mut workspace = Workspace::<f32>::new(&codebook, &stream, 8).unwrap();
    let Ok(got) = workspace.metrics(MatrixView::new(&on_device, 5, 2).unwrap(), &codes) else { return };
    let on_cpu = Codebook::new(e.view(), &Device::cpu()).unwrap();
    assert_eq!(got, metrics(x.view(), &on_cpu, &labels).unwrap());
}

#[test]
fn a_missing_barrier_of_a_warp() {
    const NAME: &str = "a_missing_barrier_of_a_warp";
    let machine = planted(NAME, "exact.cuh", "__syncwarp();  // Every lane may read it.", "// Every lane may read it.");
    is_found(&machine, NAME, &["kernel look_f32", "shared memory", "no barrier between"], || {
        let (x, e) = equidistant(40);
        assign_exactly(&x, &e);
    });
}

#[test]
fn a_shuffle_over_half_the_lanes() {
    const NAME: &str = "a_shuffle_over_half_the_lanes";
    let machine = planted(NAME, "best.cuh", "int offset = reach;", "int offset = reach / 2;");
    gives_wrong_bits(&machine, NAME, &["labels differ"], || assign_exactly(&gaussians(40, 6), &gaussians(90, 6)));
}

#[test]
fn a_shuffle_of_half_the_width() {
    const NAME: &str = "a_shuffle_of_half_the_width";
    let shuffle = "__shfl_up_sync(FULL_WARP, above, offset)";
    let machine = planted(NAME, "select.cuh", shuffle, "__shfl_up_sync(FULL_WARP, above, offset, 16)");
    gives_wrong_bits(&machine, NAME, &["planted"], || rank_exactly(&gaussians(9, 4), &gaussians(700, 4), 5));
}

/// The r nearest, as exact arithmetic ranks them.
fn rank_exactly(x: &Matrix<f32>, e: &Matrix<f32>, r: usize) {
    let codebook = Codebook::new(e.view(), &cuda()).unwrap();
    let got = top_k(x.view(), &codebook, r, AssignOptions::default()).unwrap();
    let (labels, sq_distances) = reference::top_k(x.view(), e.view(), r);
    assert_same_labels("planted", &got.labels, &labels, r);
    assert_same_bits("planted", &got.sq_distances, &sq_distances);
}

#[test]
fn a_tie_that_the_higher_index_wins() {
    const NAME: &str = "a_tie_that_the_higher_index_wins";
    // Each warp of look.cu keeps the lowest of its own, then one thread the lowest of all.
    let machine = planted(NAME, "look.cu", "winners[w] < winners[first]", "winners[w] > winners[first]");
    gives_wrong_bits(&machine, NAME, &["labels differ"], || {
        let (x, e) = equidistant(40);
        assign_exactly(&x, &e);
    });
}

#[test]
fn a_tie_of_scores_that_the_higher_position_wins() {
    const NAME: &str = "a_tie_of_scores_that_the_higher_position_wins";
    let machine = planted(NAME, "best.cuh", "b.position < a.position)", "b.position > a.position)");
    gives_wrong_bits(&machine, NAME, &["labels differ"], || {
        // Mirrored codewords have the same score at zero, and fast labels are those of the scores.
        let (x, e) = equidistant(40);
        let options = AssignOptions { precision: Precision::Fast, ..AssignOptions::default() };
        let got = assign(x.view(), &Codebook::new(e.view(), &cuda()).unwrap(), options).unwrap();
        assert_same_labels("planted", &got.labels, &[0, 0, 0], 1);
    });
}

#[test]
fn an_offset_of_32_bits() {
    const NAME: &str = "an_offset_of_32_bits";
    // Rows 2^31 elements apart: the third begins at element 2^32.
    let start = "const T* z = x + row * a.stride;";
    let machine = planted(NAME, "rows.cu", start, "const T* z = x + (u32)row * (u32)a.stride;");
    let stride = 1usize << 31;
    let huge = |machine: Machine| machine.set("MEMORY", 20usize << 30);
    let body = || {
        let (n, k, d) = (3, 20, 4);
        let e = gaussians(k, d);
        let rows: Vec<Vec<f16>> =
            gaussians(n, d).as_slice().chunks(d).map(|row| row.iter().map(|&v| f16::from_f32(v)).collect()).collect();
        let codebook = Codebook::new(e.view(), &cuda()).unwrap();
        let Device::Cuda(context) = cuda() else { unreachable!("it was asked for") };
        let stream = context.new_stream().unwrap();
        // SAFETY: the rows are written below, and what lies between them is not read.
        let mut x = unsafe { stream.alloc::<f16>(2 * stride + d) }.unwrap();
        for (i, row) in rows.iter().enumerate() {
            stream.memcpy_htod(row, &mut x.slice_mut(i * stride..i * stride + d)).unwrap();
        }
        let (mut labels, mut sq_distances) =
            (stream.alloc_zeros::<u32>(n).unwrap(), stream.alloc_zeros::<f32>(n).unwrap());
        let mut workspace = Workspace::<f16>::new(&codebook, &stream, n).unwrap();
        let view = MatrixView::with_stride(&x, n, d, stride).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        workspace.check().unwrap();
        let (nearest, _) = reference::nearest(matrix(rows.concat(), n, d).view(), e.view());
        assert_same_labels("planted", &stream.clone_dtoh(&labels).unwrap(), &nearest, 1);
    };
    if !simulated::is_available() {
        return;
    }
    let output = huge(machine).run(NAME, body);
    let text = simulated::text(&output);
    assert!(!output.status.success() && text.contains("labels differ"), "{text}");
    huge(Machine::new()).pass(NAME, body);
}

#[test]
fn a_row_number_of_32_bits() {
    const NAME: &str = "a_row_number_of_32_bits";
    let machine = planted(NAME, "common.cuh", "return row << 28 |", "return (u32)row << 28 |");
    gives_wrong_bits(&machine, NAME, &["row 19"], || {
        let mut x = gaussians(40, 3).as_slice().to_vec();
        x[19 * 3 + 1] = f32::NAN;
        let codebook = Codebook::new(gaussians(5, 3).view(), &cuda()).unwrap();
        let error = assign(matrix(x, 40, 3).view(), &codebook, AssignOptions::default()).unwrap_err();
        assert!(matches!(error, Error::NonFinite { row: 19, .. }), "not row 19: {error}");
    });
}

#[test]
fn a_second_best_that_is_dropped() {
    const NAME: &str = "a_second_best_that_is_dropped";
    let second = "best.second = fmaxf(best.second, loser);";
    let machine = planted(NAME, "best.cuh", second, "");
    gives_wrong_bits(&machine, NAME, &["differ"], || {
        // Nothing is left that could contradict the best score, so ties are settled by rounding.
        let case = common::cases::every_tier(130, 24, 12);
        assign_exactly(&case.x, &case.codewords);
    });
}

/// cuBLAS, whose sums lose all that a sum in any order may and whose products are flushed.
fn hostile(machine: Machine) -> Machine {
    machine.variable("CODEWORD_CUDA_GEMM", "cublas").set("CUBLAS", "hostile").set("MEMORY", 2_000_000)
}

#[test]
fn a_bound_that_is_not_widened() {
    const NAME: &str = "a_bound_that_is_not_widened";
    let wide = "const double norm = (double)fact[FACT_NORM] * (double)s.widening;";
    let machine = planted(NAME, "best.cuh", wide, "const double norm = (double)fact[FACT_NORM];");
    let body = || {
        // As in tests/cuda/gemm.rs: 3000 products, each lost just below half a step.
        let d = 3000;
        let near = |sign: f32| (0..d).map(move |t| sign * if t == 0 { 1.0 } else { 0.999 / 4096.0 });
        let axis = |sign: f32| (0..d).map(move |t| if t == 0 { sign } else { 0.0 });
        let e = axis(1.0).chain(axis(-1.0)).chain(near(-1.0)).chain(near(1.0)).collect();
        assign_exactly(&matrix(near(1.0).collect(), 1, d), &matrix(e, 4, d));
    };
    if !simulated::is_available() {
        return;
    }
    let output = hostile(machine).run(NAME, body);
    let text = simulated::text(&output);
    assert!(!output.status.success() && text.contains("labels differ"), "{text}");
    hostile(Machine::new()).pass(NAME, body);
}

#[test]
fn a_bound_without_what_flushing_loses() {
    const NAME: &str = "a_bound_without_what_flushing_loses";
    let lower = "const double lower = -rival - s.unit * fabs(rival) - s.tiny;";
    let machine = planted(NAME, "best.cuh", lower, "const double lower = -rival - s.unit * fabs(rival) + s.tiny;");
    let body = || {
        // As in tests/cuda/gemm.rs: all cross terms are subnormal.
        let (small, smaller) = (2f32.powi(-64), 2f32.powi(-65));
        let e = vec![1.0, 0.0, -1.0, 0.0, smaller, smaller, small, small];
        assign_exactly(&matrix(vec![small, small], 1, 2), &matrix(e, 4, 2));
    };
    if !simulated::is_available() {
        return;
    }
    let output = hostile(machine).run(NAME, body);
    let text = simulated::text(&output);
    assert!(!output.status.success() && text.contains("labels differ"), "{text}");
    hostile(Machine::new()).pass(NAME, body);
}

#[test]
fn shared_memory_that_is_not_cleared() {
    const NAME: &str = "shared_memory_that_is_not_cleared";
    let clear = "for (u32 j = threadIdx.x; j < k; j += HISTOGRAM_THREADS) bins[j] = 0;";
    let machine = planted(NAME, "histogram.cu", clear, "");
    is_found(
        &machine,
        NAME,
        &["kernel histogram_u32", "shared memory", "which nothing in the block has written"],
        count_labels,
    );
}

#[test]
fn a_count_that_is_no_atomic() {
    const NAME: &str = "a_count_that_is_no_atomic";
    let machine = planted(NAME, "best.cuh", "atomicAdd(s.again_count, 1u)", "(*s.again_count)++");
    is_found(&machine, NAME, &["kernel assign_f32", "wrote", "with nothing to order the two"], || {
        // Rows of several threads, none of which the filter pass settles.
        let (x, e) = (matrix(vec![0.0; 400], 40, 10), equidistant(40).1);
        assign_exactly(&x, &e);
    });
}

/// Sums of 300 rows in two blocks by five labels, as the oracle adds them up.
fn add_exactly() {
    let (n, k, d) = (300, 5, 1024);
    let e = gaussians(k, d);
    // Numbers of many magnitudes: any other order of adding them shows.
    let mut x = gaussians(n, d).as_slice().to_vec();
    x.iter_mut().enumerate().for_each(|(i, value)| *value *= ((i * i % 61) as f32 - 30.0).exp2());
    let x = matrix(x, n, d);
    let labels: Vec<u32> = (0..n).map(|i| (i * i % 7 % k) as u32).collect();
    let codebook = Codebook::new(e.view(), &cuda()).unwrap();
    let Device::Cuda(context) = cuda() else { unreachable!("it was asked for") };
    let stream = context.new_stream().unwrap();
    let (values, on_device) = (stream.clone_htod(x.as_slice()).unwrap(), stream.clone_htod(&labels).unwrap());
    let mut counts = stream.alloc_zeros::<u64>(k).unwrap();
    let mut totals = stream.alloc_zeros::<f64>(k).unwrap();
    let mut sums = stream.alloc_zeros::<f64>(k * d).unwrap();
    let mut workspace = Workspace::<f32>::new(&codebook, &stream, 8).unwrap();
    let view = MatrixView::new(&values, n, d).unwrap();
    let added = workspace.accumulate(view, &on_device, None, &mut counts, &mut totals, &mut sums);
    if added.and_then(|()| workspace.check()).is_ok() {
        let (expected, _) = reference::accumulate(x.view(), &labels, None, k);
        assert!(stream.clone_dtoh(&sums).unwrap() == expected, "planted: the sums differ");
    }
}

#[test]
fn a_sort_that_is_not_stable() {
    const NAME: &str = "a_sort_that_is_not_stable";
    let place = "before[i] = counted + __popc(peers & ((1u << lane) - 1u));";
    let backwards = "before[i] = counted + __popc((peers >> lane) >> 1);";
    let machine = planted(NAME, "label_order.cu", place, backwards);
    gives_wrong_bits(&machine, NAME, &["the sums differ"], add_exactly);
}

#[test]
fn a_count_that_changes_while_others_read_it() {
    const NAME: &str = "a_count_that_changes_while_others_read_it";
    let barrier = "__syncwarp();  // All have read the count before it changes.";
    let machine = planted(NAME, "label_order.cu", barrier, "");
    is_found(&machine, NAME, &["kernel label_order_scatter_u32", "shared memory", "no barrier between"], add_exactly);
}

#[test]
fn a_block_of_rows_that_ends_late() {
    const NAME: &str = "a_block_of_rows_that_ends_late";
    let machine = planted(NAME, "accumulate.cu", "if (few.rows[i] >= block_end) {", "if (few.rows[i] > block_end) {");
    gives_wrong_bits(&machine, NAME, &["the sums differ"], add_exactly);
}

#[test]
fn a_part_of_another_segment() {
    const NAME: &str = "a_part_of_another_segment";
    let slot = "const u64 slot = (place + i + ACCUMULATE_LONG - 1) / ACCUMULATE_LONG;";
    let machine = planted(NAME, "accumulate.cu", slot, "const u64 slot = (place + i) / ACCUMULATE_LONG;");
    is_found(&machine, NAME, &["kernel accumulate_f32", "reads 8 bytes", "which nothing has written"], add_exactly);
}

/// Codes that two numbers of few kinds make up, so that many are equally far, among which the device finds the nearest.
fn search_exactly() {
    let (n, k, r) = (5000, 5, 40);
    let codewords = matrix((0..2 * k).map(|j| (j % k) as f32).collect(), 2 * k, 1);
    let quantizer = ProductQuantizer::new(codewords.view(), 2, &cuda()).unwrap();
    let numbers: Vec<u32> = (0..2 * n).map(|i| (i * i % 97 % k) as u32).collect();
    let query = matrix(vec![1.0, 2.25], 1, 2);
    let Ok(got) = quantizer.search(&quantizer.pack(&numbers).unwrap(), query.view(), r) else { return };
    let entry = |s: usize, number: u32| (number as f32 - query.as_slice()[s]).powi(2);
    let distance = |code: &[u32]| entry(0, code[0]) + entry(1, code[1]);
    let mut all: Vec<(f32, u32)> = numbers.chunks(2).map(distance).zip(0..).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let expected: Vec<u32> = all[..r].iter().map(|it| it.1).collect();
    assert!(got.ids == expected, "planted: the ids differ");
}

#[test]
fn a_tie_at_the_limit_that_the_higher_ids_win() {
    const NAME: &str = "a_tie_at_the_limit_that_the_higher_ids_win";
    let machine = planted(NAME, "adc_scan.cu", "take(~(u32)key);", "take((u32)key);");
    gives_wrong_bits(&machine, NAME, &["planted"], search_exactly);
}

/// Assigns ten dimensions on tensor cores, in one launch.
fn at_once(machine: Machine) -> Machine {
    machine.variable("CODEWORD_CUDA_GEMM", "tensor")
}

#[test]
fn a_codebook_that_is_read_before_all_of_it_is_there() {
    const NAME: &str = "a_codebook_that_is_read_before_all_of_it_is_there";
    let machine = planted(NAME, "bounded_products.cuh", "__syncthreads();  // The codebook is there.", "");
    let words = ["kernel label_parts_f32", "shared memory"];
    is_found(&at_once(machine), NAME, &words, || assign_exactly(&gaussians(40, 10), &gaussians(90, 10)));
}

/// Rows at the middle of two codewords, which is not that of all, and next to it.
fn between_two() {
    let e = gaussians(3, 10);
    let middle = |i: usize, t: usize| {
        let share = 0.5 + (i as f32 - 100.0) * 2e-6;
        e.view().row(0)[t] * share + e.view().row(1)[t] * (1.0 - share)
    };
    assign_exactly(&matrix((0..2000).map(|i| middle(i / 10, i % 10)).collect(), 200, 10), &e);
}

#[test]
fn bounds_that_do_not_say_what_rounding_took() {
    const NAME: &str = "bounds_that_do_not_say_what_rounding_took";
    let all = "__fmaf_rn(part.lengths[j], power_of_two(-12) + eps, part.bounds[j])";
    let machine = planted(NAME, "bounded_products.cuh", all, "0.0f");
    gives_wrong_bits(&at_once(machine), NAME, &["planted"], between_two);
}

#[test]
fn lower_bounds_in_place_of_upper_ones() {
    const NAME: &str = "lower_bounds_in_place_of_upper_ones";
    let machine = planted(NAME, "label_parts.cu", "    turn_to_upper(packed);\n", "");
    gives_wrong_bits(&at_once(machine), NAME, &["planted"], between_two);
}

/// A device whose products of eight steps are not what they should be keeps those of sixteen.
#[test]
fn products_of_eight_steps_that_forget_half() {
    const NAME: &str = "products_of_eight_steps_that_forget_half";
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let launched = |name: &str, machine: Machine| {
        let trace = folder.path().join(name);
        let machine = at_once(machine).set("TRACE", trace.display());
        machine.pass(NAME, || {
            assign_exactly(&gaussians(40, 10), &gaussians(90, 10));
            let x = gaussians(40, 20);
            let quantizer = ProductQuantizer::new(gaussians(40, 10).view(), 2, &cuda()).unwrap();
            let on_cpu = ProductQuantizer::new(gaussians(40, 10).view(), 2, &Device::cpu()).unwrap();
            assert_eq!(quantizer.encode(x.view()).unwrap(), on_cpu.encode(x.view()).unwrap());
        });
        let trace = fs::read_to_string(trace).unwrap_or_default();
        ["label_parts_f32", "assign_tensor_f16"].map(|entry| trace.matches(entry).count() > 0)
    };
    let products = "mma_m16n8k8_f16(sum, x[1], y[1]);";
    let wrong = launched("wrong", planted(NAME, "tensor_check.cuh", products, ""));
    let right = launched("right", Machine::new());
    assert_eq!((wrong, right), ([false, true], [true, false]));
}

#[test]
fn a_list_that_is_cut_while_it_is_read() {
    const NAME: &str = "a_list_that_is_cut_while_it_is_read";
    let barrier = "__syncthreads();  // These keys are read, and";
    let machine = planted(NAME, "adc_scan.cu", barrier, "// These keys are read, and");
    is_found(&machine, NAME, &["kernel adc_scan_u4"], search_exactly);
}

#[test]
fn a_list_that_overflows() {
    const NAME: &str = "a_list_that_overflows";
    let room = "__syncthreads_or(highest + ADC_ROUND >= a.capacity)";
    let machine = planted(NAME, "adc_scan.cu", room, "__syncthreads_or(false)");
    is_found(&machine, NAME, &["kernel adc_scan_u4", "writes 8 bytes at", "out of bounds"], search_exactly);
}

#[test]
fn what_is_no_code_among_the_nearest() {
    const NAME: &str = "what_is_no_code_among_the_nearest";
    let machine = planted(NAME, "adc_scan.cu", "if (code + i >= a.n ||", "if (code + i > a.n ||");
    gives_wrong_bits(&machine, NAME, &["planted"], || {
        // All numbers of what is no code are 0, and the query lies there.
        let quantizer = ProductQuantizer::new(matrix(vec![0.0f32, 5.0], 2, 1).view(), 1, &cuda()).unwrap();
        let got = quantizer.search(&[1; 5], matrix(vec![0.0f32], 1, 1).view(), 3).unwrap();
        assert!(got.ids == [0, 1, 2], "planted: {:?}", got.ids);
    });
}

#[test]
fn four_values_at_once_from_anywhere() {
    const NAME: &str = "four_values_at_once_from_anywhere";
    let machine = planted(NAME, "gather.cu", "if (d % 4 == 0 && places % 16 == 0) {", "if (d % 4 == 0) {");
    is_found(&machine, NAME, &["kernel gather_f32", "writes", "not aligned to 16 bytes"], || {
        let e = gaussians(5, 8);
        let codebook = Codebook::new(e.view(), &cuda()).unwrap();
        let Device::Cuda(context) = cuda() else { unreachable!("it was asked for") };
        let stream = context.new_stream().unwrap();
        let codes = stream.clone_htod(&[3u32, 1]).unwrap();
        let mut room = stream.alloc_zeros::<f32>(17).unwrap();
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 4).unwrap();
        let decoded = workspace.decode(&codes, &mut room.slice_mut(1..)).and_then(|()| workspace.check());
        if decoded.is_ok() {
            let got = stream.clone_dtoh(&room).unwrap();
            assert_same_bits("planted", &got[1..], &[e.view().row(3), e.view().row(1)].concat());
        }
    });
}

/// Decodes two codes by a launch written here; `mistake` names what is wrong with it.
fn launch_gather(mistake: Option<&str>) {
    let context = CudaContext::new(0).unwrap();
    let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let kernel = KERNELS.iter().find(|kernel| kernel.stem == "gather").unwrap();
    let text = kernel.shipped.or(kernel.built).unwrap().text;
    let module = context.load_module(codeword::cuda::cudarc::nvrtc::Ptx::from_src(text)).unwrap();
    let gather = module.load_function("gather_f32").unwrap();
    let codes = stream.clone_htod(&[1u32, 0]).unwrap();
    let codewords = stream.clone_htod(&[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    let mut bad = stream.clone_htod(&[u64::MAX]).unwrap();
    // SAFETY: no kernel reads it before one has written it, or the driver says so.
    let mut out = unsafe { stream.alloc::<f32>(4) }.unwrap();
    stream.synchronize().unwrap();
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
    let (n, k, d) = (2u64, 2u32, 2u32);
    let mut launch = stream.launch_builder(&gather);
    launch.arg(&codes);
    match mistake {
        Some("swapped") => launch.arg(&mut out).arg(&codewords),
        Some("shared") => launch.arg(&codewords).arg(&out),
        _ => launch.arg(&codewords).arg(&mut out),
    };
    launch.arg(&n).arg(&k).arg(&d).arg(&mut bad);
    // SAFETY: sizes and types are those of gather_f32; what else is wrong here is for the driver to find.
    unsafe { launch.launch(config) }.unwrap();
    // By another stream: cudarc makes it wait for what it was told writes `out`.
    let got = other.clone_dtoh(&out).unwrap();
    if mistake.is_none() {
        assert_eq!(got, [3.0, 4.0, 1.0, 2.0]);
    }
}

#[test]
fn an_output_in_the_place_of_an_input() {
    const NAME: &str = "an_output_in_the_place_of_an_input";
    let words = ["kernel gather_f32", "reads 4 bytes at offset", "which nothing has written"];
    Machine::new().find(NAME, &words, || launch_gather(Some("swapped")));
}

#[test]
fn an_output_that_is_passed_as_an_input() {
    const NAME: &str = "an_output_that_is_passed_as_an_input";
    for seed in [0, 1, 2] {
        let machine = Machine::new().set("SEED", seed);
        machine.find(NAME, &["use the same bytes", "no event or wait orders them"], || launch_gather(Some("shared")));
    }
}

#[test]
fn the_same_launch_without_a_mistake() {
    Machine::new().pass("the_same_launch_without_a_mistake", || launch_gather(None));
}
