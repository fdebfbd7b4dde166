//! The filter pass by cuBLAS, by our own kernel, and without cuBLAS: whoever sums the scores, in whatever order, labels and
//! distances are those of the exact oracle. And what is said where cuBLAS is missing, fails, or is not what was named.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, cases, matrix, total};
use crate::filter::{
    assert_adversarial, assert_exact, assert_sizes, assert_types_and_fast, assert_wild_rows, gaussians, on,
};
use crate::simulated::{self, Machine, pass_on_each};
use codeword::backend::reference;
use codeword::cuda::{self, Workspace};
use codeword::{AssignOptions, Codebook, Device, Error, MatrixView, assign};

const DESIGN: &str = "CODEWORD_CUDA_GEMM";

/// cuBLAS forced: as it is, summing as badly as it may, and on a card so small that tiles have few rows and columns.
fn with_cublas() -> [Machine; 2] {
    let forced = Machine::new().variable(DESIGN, "cublas");
    [forced.clone(), forced.set("CUBLAS", "hostile").set("MEMORY", 2_000_000)]
}

/// Our own kernel, because it is forced or because there is nothing else.
fn without_cublas() -> [Machine; 2] {
    [Machine::new().variable(DESIGN, "simt"), Machine::new().without_cublas()]
}

#[test]
fn adversarial_data_and_golden_cases_by_cublas() {
    // Every access of either machine is checked in the tests of sizes; here of the first alone.
    let [first, second] = with_cublas();
    let machines = [first, second.set("CHECK", 0)];
    pass_on_each(machines, "gemm::adversarial_data_and_golden_cases_by_cublas", || {
        assert_adversarial(&[(13, 33, 7), (67, 66, 3), (7, 130, 17)]);
    });
}

#[test]
fn adversarial_data_without_cublas() {
    // Likewise.
    let [first, second] = without_cublas();
    pass_on_each([first, second.set("CHECK", 0)], "gemm::adversarial_data_without_cublas", || {
        // Two tiles of codewords, and rows on either side of a tile's edge.
        for (n, k, d) in [(130, 7, 5), (5, 261, 9)] {
            for case in cases::adversarial(n, k, d) {
                assert_exact(&case.name, case.x.view(), case.codewords.view());
            }
        }
    });
}

#[test]
fn sizes_around_every_tile_of_either_design() {
    pass_on_each(
        with_cublas().into_iter().chain(without_cublas()),
        "gemm::sizes_around_every_tile_of_either_design",
        || {
            // Rows and codewords by 128, or by 32 and 128 beside cuBLAS; depth (two more than d) by 8, its chunks by 512.
            let sizes = [
                (1, 1, 1),
                (2, 1, 3),
                (1, 2, 1),
                (3, 127, 5),
                (31, 128, 6),
                (33, 129, 7),
                (127, 130, 13),
                (128, 255, 14),
                (129, 257, 15),
                (257, 131, 2),
                (6, 5, 509),
                (5, 7, 510),
                (4, 6, 511),
                (7, 3, 514),
                (3, 11, 1022),
                (2, 9, 1500),
            ];
            assert_sizes(&mut Numbers::new(51), 1, &sizes);
        },
    );
}

#[test]
fn codewords_of_several_runs_are_joined() {
    // A tile of cuBLAS has 2048 columns at most, and equal codewords of different runs compete by index; on the card of
    // 2 MB a run has fewer rows than the block.
    pass_on_each(with_cublas(), "gemm::codewords_of_several_runs_are_joined", || {
        assert_sizes(&mut Numbers::new(52), 40, &[(70, 2049, 2), (45, 4500, 3)]);
    });
}

#[test]
fn our_own_kernel_takes_several_tiles_where_it_has_fewer_places() {
    let simt = Machine::new().variable(DESIGN, "simt").set("CHECK", 0);
    simt.pass("gemm::our_own_kernel_takes_several_tiles_where_it_has_fewer_places", || {
        let mut numbers = Numbers::new(53);
        let (n, k, d) = (3, 216 * 128 + 300, 1);
        let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
        assert_exact("more tiles than places", x.view(), e.view());
    });
}

#[test]
fn duplicates_wild_rows_and_rows_that_are_not_finite() {
    pass_on_each(
        with_cublas().into_iter().chain(without_cublas()),
        "gemm::duplicates_wild_rows_and_rows_that_are_not_finite",
        || {
            let mut numbers = Numbers::new(54);
            let (n, k, d) = (40, 150, 11);
            let few = gaussians(&mut numbers, 9, d);
            let copies = (0..k).flat_map(|j| few.view().row(j * j % 9).to_vec()).collect();
            assert_exact("duplicates", gaussians(&mut numbers, n, d).view(), matrix(copies, k, d).view());
            assert_wild_rows(&mut numbers);
        },
    );
}

#[test]
fn sixteen_bit_rows_and_fast_labels() {
    pass_on_each(with_cublas(), "gemm::sixteen_bit_rows_and_fast_labels", || {
        assert_types_and_fast(&mut Numbers::new(55), 1.0 + 1e-4);
    });
}

#[test]
fn a_sum_that_loses_all_it_may_certifies_nothing_wrong() {
    // Each lost product is just below half a step of the sum: 3000 of them are more than the bound of sums in chunks,
    // on which the packed bounds count, and less than that of any order.
    with_cublas()[1].pass("gemm::a_sum_that_loses_all_it_may_certifies_nothing_wrong", || {
        let d = 3000;
        let near = |sign: f32| (0..d).map(move |t| sign * if t == 0 { 1.0 } else { 0.999 / 4096.0 });
        let axis = |sign: f32| (0..d).map(move |t| if t == 0 { sign } else { 0.0 });
        let e = axis(1.0).chain(axis(-1.0)).chain(near(-1.0)).chain(near(1.0)).collect();
        let stats = assert_exact("lost products", matrix(near(1.0).collect(), 1, d).view(), matrix(e, 4, d).view());
        assert_eq!(stats.first, 0, "{stats:?}");
    });
}

#[test]
fn products_that_are_flushed_certify_nothing_wrong() {
    // All cross terms are subnormal: flushed to zero, they leave the shortest codeword as the nearest.
    with_cublas()[1].pass("gemm::products_that_are_flushed_certify_nothing_wrong", || {
        let (small, smaller) = (2f32.powi(-64), 2f32.powi(-65));
        let e = vec![1.0, 0.0, -1.0, 0.0, smaller, smaller, small, small];
        assert_exact("flushed products", matrix(vec![small, small], 1, 2).view(), matrix(e, 4, 2).view());
    });
}

/// How many products of cuBLAS are in the trace of a machine that assigns n rows to k codewords of d dimensions.
fn products(test: &str, machine: &Machine, sizes: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let machine = machine.clone().set("TRACE", trace.display()).set("CHECK", 0).set("SIZES", sizes);
    let output = machine.run(test, || {
        let sizes = std::env::var("CODEWORD_SIM_SIZES").expect("set by the parent");
        let sizes: Vec<usize> = sizes.split(' ').map(|size| size.parse().expect("a number")).collect();
        let (n, k, d) = (sizes[0], sizes[1], sizes[2]);
        let mut numbers = Numbers::new(56);
        let few = numbers.gaussians(31 * d);
        let x = matrix(few.iter().copied().cycle().take(n * d).collect(), n, d);
        let e = gaussians(&mut numbers, k, d);
        let got = assign(x.view(), &on(e.view()), AssignOptions::default()).unwrap();
        let (labels, _) = reference::nearest(matrix(few, 31, d).view(), e.view());
        let expected: Vec<u32> = (0..n).map(|i| labels[i % 31]).collect();
        assert_same_labels("repeated rows", &got.labels, &expected, 1);
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
    let trace = std::fs::read_to_string(trace).unwrap();
    let products = trace.lines().filter(|line| line.starts_with("submit ") && line.contains("gemm "));
    let pedantic = products.clone().filter(|line| line.contains("compute=69 math=0")).count();
    assert_eq!(products.count(), pedantic, "a product in less than pedantic f32");
    pedantic
}

#[test]
fn cublas_is_used_where_it_pays_and_only_where_it_is() {
    if !simulated::is_available() {
        return;
    }
    let test = "gemm::cublas_is_used_where_it_pays_and_only_where_it_is";
    let (small, large) = ("40 20 8", "1024 512 128");
    // Tensor cores that are known come first.
    let plain = Machine::new().set("CAPABILITY", 100);
    let auto = plain.clone().variable(DESIGN, "auto");
    let simt = Machine::new().variable(DESIGN, "simt");
    let cublas = Machine::new().variable(DESIGN, "cublas");
    for (machine, sizes, expected) in [
        (&plain, small, false),
        (&plain, large, true),
        (&Machine::new(), large, false),
        (&auto, small, false),
        (&auto, large, true),
        (&cublas, small, true),
        (&simt, small, false),
        (&simt, large, false),
        (&plain.clone().without_cublas(), large, false),
    ] {
        assert_eq!(products(test, machine, sizes) > 0, expected, "{sizes:?}");
    }
}

#[test]
fn its_absence_is_logged_once_and_not_before_it_matters() {
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
    let machine = Machine::new().set("CAPABILITY", 100).without_cublas().set("CHECK", 0);
    machine.pass("gemm::its_absence_is_logged_once_and_not_before_it_matters", || {
        log::set_logger(&LINES).expect("the only one");
        log::set_max_level(log::LevelFilter::Info);
        let said = || {
            let lines = LINES.0.lock().expect("no test panics in here");
            lines
                .iter()
                .filter(|line| line.starts_with("INFO: ") && line.contains("no cuBLAS library was found"))
                .count()
        };
        let mut numbers = Numbers::new(61);
        let (n, k, d) = (1024, 512, 128);
        let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
        let codebook = on(e.view());
        let few = MatrixView::new(&x.as_slice()[..5 * d], 5, d).unwrap();
        assign(few, &codebook, AssignOptions::default()).unwrap();
        assert_eq!(said(), 0);
        for _ in 0..2 {
            assign(x.view(), &codebook, AssignOptions::default()).unwrap();
            assert_eq!(said(), 1);
        }
    });
}

#[test]
fn a_cublas_that_is_there_and_fails_is_an_error_and_so_is_one_that_was_demanded() {
    let forced = Machine::new().variable(DESIGN, "cublas");
    for (machine, asked, got) in [
        (forced.clone().set("CUBLAS", "failing"), "a handle of cuBLAS", "CUBLAS_STATUS_NOT_INITIALIZED"),
        (forced.clone().set("CUBLAS", "failing-call"), "a matrix product of cuBLAS", "CUBLAS_STATUS_EXECUTION_FAILED"),
        (forced.without_cublas(), "cuBLAS, which CODEWORD_CUDA_GEMM=cublas demands", "no cuBLAS library was found"),
    ] {
        let machine = machine.set("ASKED", asked).set("GOT", got);
        machine.pass("gemm::a_cublas_that_is_there_and_fails_is_an_error_and_so_is_one_that_was_demanded", || {
            let expected = |name: &str| std::env::var(format!("CODEWORD_SIM_{name}")).expect("set by the parent");
            let mut numbers = Numbers::new(57);
            let (x, e) = (gaussians(&mut numbers, 5, 4), gaussians(&mut numbers, 6, 4));
            let error = assign(x.view(), &on(e.view()), AssignOptions::default()).unwrap_err();
            assert!(matches!(error, Error::Cuda { op: "assign", .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&expected("ASKED")) && text.contains(&expected("GOT")), "{text}");
            assert!(text.contains("CODEWORD_CUDA_GEMM"), "the way out is missing: {text}");
        });
    }
}

#[test]
fn a_cublas_that_makes_no_handle_is_told_and_done_without() {
    let machine = Machine::new().set("CUBLAS", "failing").set("CHECK", 0);
    machine.pass("gemm::a_cublas_that_makes_no_handle_is_told_and_done_without", || {
        let mut numbers = Numbers::new(62);
        let (n, k, d) = (1024, 512, 128);
        let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
        let got = assign(x.view(), &on(e.view()), AssignOptions::default()).unwrap();
        let cpu = Codebook::new(e.view(), &Device::cpu()).unwrap();
        let expected = assign(x.view(), &cpu, AssignOptions::default()).unwrap();
        assert_same_labels("without cuBLAS", &got.labels, &expected.labels, 1);
    });
}

#[test]
fn a_design_that_does_not_exist_is_refused_by_name() {
    let machine = Machine::new().variable(DESIGN, "mma");
    machine.pass("gemm::a_design_that_does_not_exist_is_refused_by_name", || {
        let mut numbers = Numbers::new(58);
        let (x, e) = (gaussians(&mut numbers, 5, 4), gaussians(&mut numbers, 6, 4));
        let error = assign(x.view(), &on(e.view()), AssignOptions::default()).unwrap_err();
        assert!(matches!(error, Error::InvalidParameter { name: "CODEWORD_CUDA_GEMM", .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("mma") && text.contains("auto, cublas, simt, tensor"), "{text}");
    });
}

#[test]
fn each_allocation_that_cublas_brings_may_be_refused() {
    if !simulated::is_available() {
        return;
    }
    let test = "gemm::each_allocation_that_cublas_brings_may_be_refused";
    let work = || {
        let mut numbers = Numbers::new(59);
        let (x, e) = (gaussians(&mut numbers, 300, 30), gaussians(&mut numbers, 140, 30));
        let device = Device::cuda(0).expect("the simulated device opens");
        let labels =
            Codebook::new(e.view(), &device).and_then(|codebook| assign(x.view(), &codebook, AssignOptions::default()));
        match labels {
            Ok(_) => println!("outcome: done"),
            Err(Error::Cuda { got, .. }) => println!("outcome: refused with {got}"),
            Err(error) => println!("outcome: {error}"),
        }
    };
    let mut refusals = Vec::new();
    for nth in 1.. {
        let card = Machine::new().variable(DESIGN, "cublas").set("MEMORY", 1_500_000).set("FAIL_ALLOC", nth);
        let output = card.run(test, work);
        let text = simulated::text(&output);
        assert!(output.status.success(), "allocation {nth}: {}\n{text}", output.status);
        if text.contains("outcome: done") {
            break;
        }
        let refused = text.lines().find_map(|line| Some(line.split_once("outcome: refused with ")?.1.to_string()));
        refusals.push(refused.unwrap_or_else(|| panic!("allocation {nth}: {text}")));
    }
    // The handle is cuBLAS's own allocation, everything else the driver's.
    let of_cublas = refusals.iter().filter(|got| *got == "CUBLAS_STATUS_ALLOC_FAILED").count();
    let of_driver = refusals.iter().filter(|got| *got == "CUDA_ERROR_OUT_OF_MEMORY").count();
    assert!(of_cublas > 0 && of_cublas + of_driver == refusals.len() && of_driver > 15, "{refusals:?}");
}

#[test]
fn vectors_on_the_device_are_scored_by_cublas_too() {
    pass_on_each(with_cublas(), "gemm::vectors_on_the_device_are_scored_by_cublas_too", || {
        let mut numbers = Numbers::new(60);
        let (n, k, d) = (75, 140, 9);
        let (x, e) = (gaussians(&mut numbers, n, d), gaussians(&mut numbers, k, d));
        let codebook = on(e.view());
        let Device::Cuda(context) = codebook.device() else { panic!("it is on the device") };
        let stream = context.cuda().new_stream().unwrap();
        let on_device = stream.clone_htod(x.as_slice()).unwrap();
        let mut labels = stream.alloc_zeros::<u32>(n).unwrap();
        let mut sq_distances = stream.alloc_zeros::<f32>(n).unwrap();
        // Blocks of 32 rows.
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 32).unwrap();
        let view = cuda::MatrixView::new(&on_device, n, d).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        assert_eq!(total(workspace.check().unwrap()), n as u64);
        let (expected, expected_distances) = reference::nearest(x.view(), e.view());
        assert_same_labels("on the device", &stream.clone_dtoh(&labels).unwrap(), &expected, 1);
        let got = stream.clone_dtoh(&sq_distances).unwrap();
        assert_same_bits("on the device", &got, &expected_distances);
    });
}
