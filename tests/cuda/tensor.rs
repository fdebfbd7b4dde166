//! The filter pass on tensor cores: labels and distances are those of the exact oracle, on every architecture whose tensor
//! cores are trusted, for sums as bad as the bound allows, and where the device's are not what they should be.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, cases, matrix, total};
use crate::filter::{
    assert_adversarial, assert_exact, assert_sizes, assert_types_and_fast, assert_wild_rows, gaussians, on,
};
use crate::simulated::{self, Machine, pass_on_each};
use codeword::backend::reference;
use codeword::cuda::{self, Workspace};
use codeword::{AssignOptions, Codebook, Device, Matrix, assign};

fn tensor() -> Machine {
    Machine::new().variable("CODEWORD_CUDA_GEMM", "tensor")
}

/// Both kinds of tensor cores; as their models say, and as badly as the bound allows; threads and blocks in any order.
fn machines() -> [Machine; 3] {
    [
        tensor(),
        tensor().set("CAPABILITY", 90).seed(1),
        tensor().set("CAPABILITY", 86).set("TENSOR", "hostile").seed(2).set("CHECK", 0),
    ]
}

fn scaled(x: &Matrix<f32>, by: f32) -> Matrix<f32> {
    matrix(x.as_slice().iter().map(|v| v * by).collect(), x.rows(), x.cols())
}

#[test]
fn adversarial_data_and_golden_cases_by_tensor_cores() {
    // Every access of either kind is checked in the tests of sizes; here by the first machine alone.
    let [first, second, third] = machines();
    let machines = [first, second.set("CHECK", 0), third];
    pass_on_each(machines, "tensor::adversarial_data_and_golden_cases_by_tensor_cores", || {
        assert_adversarial(&[(13, 33, 7), (130, 7, 5), (7, 130, 17)]);
    });
}

#[test]
fn sizes_around_every_tile_and_stage() {
    pass_on_each(machines(), "tensor::sizes_around_every_tile_and_stage", || {
        // Rows and codewords by 128, warps of 64 x 64; depth by 16 and 32, and more stages than there is room for.
        let sizes = [
            (1, 2, 31),
            (2, 3, 32),
            (63, 31, 33),
            (64, 32, 64),
            (65, 33, 65),
            (127, 127, 30),
            (128, 128, 8),
            (129, 129, 97),
            (140, 255, 9),
            (257, 131, 2),
            (9, 257, 255),
            (8, 5, 256),
            (5, 7, 257),
            (4, 9, 258),
            (3, 4, 1025),
        ];
        assert_sizes(&mut Numbers::new(71), 1, &sizes);
    });
}

#[test]
fn every_small_dimension() {
    pass_on_each(machines(), "tensor::every_small_dimension", || {
        let mut numbers = Numbers::new(72);
        for d in 1..=20 {
            let (n, k) = (21 + d, 45 - d);
            let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
            assert_exact(&format!("d = {d}"), x.view(), e.view());
        }
    });
}

#[test]
fn most_ordinary_rows_are_certified_at_once_and_duplicates_do_not_matter() {
    tensor().set("CHECK", 0).pass(
        "tensor::most_ordinary_rows_are_certified_at_once_and_duplicates_do_not_matter",
        || {
            let mut numbers = Numbers::new(73);
            let (n, k, d) = (600, 200, 64);
            let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
            let stats = assert_exact("gaussian", x.view(), e.view());
            assert!(stats.first >= n as u64 * 92 / 100, "{stats:?}");
            // A codeword far out spoils no other one's bound, and neither does an offset that the mean takes away.
            let mut far = e.as_slice().to_vec();
            far[3 * d..4 * d].iter_mut().for_each(|v| *v *= 100.0);
            let stats = assert_exact("one far out", x.view(), matrix(far, k, d).view());
            assert!(stats.first >= n as u64 * 92 / 100, "{stats:?}");
            let moved = |x: &Matrix<f32>| matrix(x.as_slice().iter().map(|v| v + 100.0).collect(), x.rows(), d);
            let stats = assert_exact("off centre", moved(&x).view(), moved(&e).view());
            assert!(stats.first >= n as u64 * 92 / 100, "{stats:?}");
            let copies = (0..k).flat_map(|j| e.view().row(j * j % 50).to_vec()).collect();
            let stats = assert_exact("duplicates", x.view(), matrix(copies, k, d).view());
            assert!(stats.first >= n as u64 * 92 / 100, "{stats:?}");
        },
    );
}

#[test]
fn scales_from_subnormal_to_huge() {
    pass_on_each(machines(), "tensor::scales_from_subnormal_to_huge", || {
        let mut numbers = Numbers::new(74);
        let (n, k, d) = (20, 30, 12);
        let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
        for (of_x, of_e) in [
            (1e-42, 1e-42),
            (1e-38, 1e-38),
            (1e-22, 1e-22),
            (1e-6, 1.0),
            (1.0, 1e-6),
            (1e-30, 1.0),
            (1.0, 1e-30),
            (1e4, 1.0),
            (1e18, 1e18),
            (6e37, 6e37),
            (3e37, 1.0),
            (1.0, 3e37),
        ] {
            assert_exact(&format!("{of_x:e} and {of_e:e}"), scaled(&x, of_x).view(), scaled(&e, of_e).view());
        }
    });
}

#[test]
fn ties_and_near_ties_within_what_halves_can_tell() {
    pass_on_each(machines(), "tensor::ties_and_near_ties_within_what_halves_can_tell", || {
        let mut numbers = Numbers::new(75);
        let (n, d) = (30, 40);
        let x = gaussians(&mut numbers, n, d);
        // Codewords around the rows, in pairs that differ in the last bits of one component: f16 sees equals.
        let mut e: Vec<f32> = Vec::new();
        for i in 0..n {
            let mut near: Vec<f32> = x.view().row(i).iter().map(|v| v + 0.01 * numbers.gaussian()).collect();
            for step in [2, 1, 0, 3] {
                near[i % d] = cases::step(near[i % d], step);
                e.extend(&near);
            }
        }
        let stats = assert_exact("pairs", x.view(), matrix(e, 4 * n, d).view());
        assert_eq!(stats.first, 0, "{stats:?}");
        // Exact ties of different codewords, the lowest index last among equals of the kernel's order.
        let e: Vec<f32> = (0..150)
            .flat_map(|j| (0..d).map(move |t| if t == j % d { if j < d { 1.0 } else { -1.0 } } else { 0.0 }))
            .collect();
        assert_exact("ties", matrix(vec![0.0; 5 * d], 5, d).view(), matrix(e, 150, d).view());
    });
}

#[test]
fn a_sum_that_loses_all_it_may_certifies_nothing_wrong() {
    pass_on_each(machines(), "tensor::a_sum_that_loses_all_it_may_certifies_nothing_wrong", || {
        // All are f16 as they are. Each product but the first is just below what is kept beside the first: 3000 lost
        // ones make the row's own codeword, at distance 0, look further away than an axis.
        let d = 3000;
        let small = (1.0 - 2f32.powi(-10)) / 4096.0;
        let near = |sign: f32| (0..d).map(move |t| sign * if t == 0 { 1.0 } else { small });
        let axis = |sign: f32| (0..d).map(move |t| if t == 0 { sign } else { 0.0 });
        let e = axis(1.0).chain(axis(-1.0)).chain(near(-1.0)).chain(near(1.0)).collect();
        let stats = assert_exact("lost products", matrix(near(1.0).collect(), 1, d).view(), matrix(e, 4, d).view());
        assert_eq!(stats.first, 0, "{stats:?}");
    });
}

#[test]
fn rounding_rows_or_codewords_to_halves_certifies_nothing_wrong() {
    pass_on_each(machines(), "tensor::rounding_rows_or_codewords_to_halves_certifies_nothing_wrong", || {
        let (d, ulp) = (64, 2f32.powi(-10));
        // A row that stands square on the codewords 1 and -1 but for what rounding takes away, all of it on the side of
        // 1, and one component on the other side: as halves the row lies nearer to -1.
        let row = |t: usize| match t {
            0 => 1.0 - 4.0 * ulp,
            t if t % 2 == 0 => 1.0 + 0.45 * ulp,
            _ => -1.0 + 0.22 * ulp,
        };
        for sign in [1.0, -1.0] {
            let e = [sign, -sign].iter().flat_map(|&side| vec![side; d]).collect();
            let stats =
                assert_exact("rounded row", matrix((0..d).map(row).collect(), 1, d).view(), matrix(e, 2, d).view());
            assert_eq!(stats.first, 0, "{stats:?}");
        }
        let up = ulp / 2.0;
        let vector = |by: f32| (0..d).map(move |t| if t % 2 == 0 { 1.0 + by } else { -1.0 - by });
        // Codewords that round onto each other's side of a row that is a half.
        for by in [up * 0.9, up * 1.1] {
            let e =
                vector(by).chain(vector(3.0 * up)).chain(vector(by).map(|v| -v)).chain(vector(3.0 * up).map(|v| -v));
            let x = vector(2.0 * up).chain(vector(0.0)).collect();
            assert_exact("rounded codewords", matrix(x, 2, d).view(), matrix(e.collect(), 4, d).view());
        }
    });
}

#[test]
fn wild_rows_and_rows_that_are_not_finite() {
    pass_on_each(machines(), "tensor::wild_rows_and_rows_that_are_not_finite", || {
        assert_wild_rows(&mut Numbers::new(76))
    });
}

#[test]
fn sixteen_bit_rows_and_fast_labels() {
    pass_on_each(machines(), "tensor::sixteen_bit_rows_and_fast_labels", || {
        // Rounding to f16 moves a score by about 2^-11 of the norms, which are near the distance here.
        assert_types_and_fast(&mut Numbers::new(77), 1.0 + 1e-2);
    });
}

#[test]
fn codewords_are_split_where_rows_are_few_and_joined_in_the_order_of_their_labels() {
    pass_on_each(
        machines(),
        "tensor::codewords_are_split_where_rows_are_few_and_joined_in_the_order_of_their_labels",
        || {
            let mut numbers = Numbers::new(78);
            for (n, k, d) in [(3, 1500, 2), (140, 700, 3)] {
                let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
                assert_exact(&format!("{n} x {k} x {d}"), x.view(), e.view());
                let (x, e) = (matrix(numbers.integers(n * d, 9), n, d), matrix(numbers.integers(k * d, 9), k, d));
                assert_exact(&format!("{n} x {k} x {d}, integers"), x.view(), e.view());
            }
        },
    );
}

#[test]
fn a_workspace_takes_vectors_on_the_device_and_other_codebooks() {
    let designs = ["simt", "cublas"].map(|it| Machine::new().variable("CODEWORD_CUDA_GEMM", it));
    let machines = machines().into_iter().chain(designs);
    pass_on_each(machines, "tensor::a_workspace_takes_vectors_on_the_device_and_other_codebooks", || {
        let mut numbers = Numbers::new(79);
        let (n, d) = (75, 9);
        let x = gaussians(&mut numbers, n, d);
        let books: Vec<Matrix<f32>> = [100, 100, 600, 40].map(|k| gaussians(&mut numbers, k, d)).into();
        let first = on(books[0].view());
        let Device::Cuda(context) = first.device() else { panic!("it is on the device") };
        let stream = context.cuda().new_stream().unwrap();
        let on_device = stream.clone_htod(x.as_slice()).unwrap();
        let mut labels = stream.alloc_zeros::<u32>(n).unwrap();
        let mut sq_distances = stream.alloc_zeros::<f32>(n).unwrap();
        // Blocks of 32 rows.
        let mut workspace = Workspace::<f32>::new(&first, &stream, 32).unwrap();
        for e in &books {
            workspace.set_codebook(&on(e.view())).unwrap();
            let view = cuda::MatrixView::new(&on_device, n, d).unwrap();
            workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
            assert_eq!(total(workspace.check().unwrap()), n as u64);
            let (expected, expected_distances) = reference::nearest(x.view(), e.view());
            assert_same_labels("on the device", &stream.clone_dtoh(&labels).unwrap(), &expected, 1);
            let got = stream.clone_dtoh(&sq_distances).unwrap();
            assert_same_bits("on the device", &got, &expected_distances);
        }
    });
}

/// The kernels of the filter pass that a machine launches to assign 1024 rows to 512 codewords of 128 dimensions, and how
/// often.
fn launched(test: &str, machine: &Machine, entry: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let machine = machine.clone().set("TRACE", trace.display()).set("CHECK", 0);
    let output = machine.run(test, || {
        let (n, k, d) = (1024, 512, 128);
        let mut numbers = Numbers::new(80);
        let few = numbers.gaussians(31 * d);
        let x = matrix(few.iter().copied().cycle().take(n * d).collect(), n, d);
        let (e, options) = (gaussians(&mut numbers, k, d), AssignOptions::default());
        let codebook = on(e.view());
        let got = assign(x.view(), &codebook, options).unwrap();
        assert_eq!(assign(x.view(), &codebook, options).unwrap().labels, got.labels);
        let (labels, _) = reference::nearest(matrix(few, 31, d).view(), e.view());
        let expected: Vec<u32> = (0..n).map(|i| labels[i % 31]).collect();
        assert_same_labels("repeated rows", &got.labels, &expected, 1);
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
    let trace = std::fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.starts_with("submit ") && line.contains(entry)).count()
}

#[test]
fn tensor_cores_are_used_where_they_are_known_and_tested_and_nowhere_else() {
    if !simulated::is_available() {
        return;
    }
    let test = "tensor::tensor_cores_are_used_where_they_are_known_and_tested_and_nowhere_else";
    let auto = Machine::new().variable("CODEWORD_CUDA_GEMM", "auto");
    for (machine, used) in [
        (tensor(), true),
        (tensor().set("CAPABILITY", 86), true),
        (tensor().set("CAPABILITY", 89), true),
        (tensor().set("CAPABILITY", 90), true),
        (tensor().set("CAPABILITY", 86).set("TENSOR", "hostile"), true),
        (tensor().set("CAPABILITY", 100), false),
        (tensor().set("CAPABILITY", 120), false),
        (tensor().set("TENSOR", "coarse"), false),
        (tensor().set("TENSOR", "coarse").set("CAPABILITY", 90), false),
        (auto.clone(), true),
        (auto.clone().set("CAPABILITY", 90), true),
        (auto.set("CAPABILITY", 100), false),
        (Machine::new(), true),
        (Machine::new().variable("CODEWORD_CUDA_GEMM", "simt"), false),
    ] {
        // Which kernels run is the question: single accesses are checked elsewhere.
        assert_eq!(launched(test, &machine.set("CHECK", 0), "assign_tensor_f16") > 0, used);
    }
    // Two calls, one test of the device.
    assert_eq!(launched(test, &tensor(), "tensor_check_f16"), 1);
    assert_eq!(launched(test, &tensor().set("TENSOR", "coarse"), "tensor_check_f16"), 1);
    assert_eq!(launched(test, &Machine::new().set("CAPABILITY", 100), "tensor_check_f16"), 0);
}

#[test]
fn tensor_cores_that_are_not_used_are_logged_once() {
    struct Lines(std::sync::Mutex<Vec<String>>);
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().expect("no test panics in here").push(format!("{}: {}", record.level(), record.args()));
        }
        fn flush(&self) {}
    }
    static LINES: Lines = Lines(std::sync::Mutex::new(Vec::new()));
    for (machine, words) in [
        (tensor().set("TENSOR", "coarse"), "a sum on those of this device (compute capability 8.0) was off by"),
        (tensor().set("CAPABILITY", 120), "how those of compute capability 12.0 round is not known"),
    ] {
        machine.set("WORDS", words).pass("tensor::tensor_cores_that_are_not_used_are_logged_once", || {
            log::set_logger(&LINES).expect("the only one");
            log::set_max_level(log::LevelFilter::Warn);
            let words = std::env::var("CODEWORD_SIM_WORDS").expect("set by the parent");
            let mut numbers = Numbers::new(81);
            let (x, e) = (gaussians(&mut numbers, 5, 4), gaussians(&mut numbers, 6, 4));
            let codebook = on(e.view());
            for _ in 0..2 {
                let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
                assert_same_labels("in f32", &got.labels, &reference::nearest(x.view(), e.view()).0, 1);
                let lines = LINES.0.lock().expect("no test panics in here");
                let said = lines.iter().filter(|line| line.starts_with("WARN: scoring without tensor cores: "));
                let said: Vec<_> = said.collect();
                assert!(said.len() == 1 && said[0].contains(&words), "{lines:?}");
            }
        });
    }
}

#[test]
fn each_allocation_may_be_refused() {
    if !simulated::is_available() {
        return;
    }
    let refusals = tensor().set("CHECK", 0).refuse_each("tensor::each_allocation_may_be_refused", || {
        let mut numbers = Numbers::new(82);
        let (x, e) = (gaussians(&mut numbers, 300, 30), gaussians(&mut numbers, 140, 30));
        let codebook = Codebook::new(e.view(), &Device::cuda(0)?)?;
        assign(x.view(), &codebook, AssignOptions::default()).map(|_| ())
    });
    assert!(refusals > 19, "{refusals}");
}
