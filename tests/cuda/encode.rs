//! Product codes of vectors that lie on the device, made there and left there: the bytes of the processor, in the caller's
//! stream, with nothing waiting behind the caller's back. On the simulated driver, in child processes.

use crate::alone::{open, threads};
use crate::common::{Numbers, matrix, total};
use crate::simulated::{self, Machine, pass_on_each};
use codeword::cuda::cudarc::driver::{
    CudaSlice, CudaStream, CudaView, DevicePtrMut, DeviceRepr, DriverError, PushKernelArg,
};
use codeword::cuda::{Context, MatrixView, ProductWorkspace, Raw, Workspace};
use codeword::{AssignOptions, AssignStats, Device, Element, Error, Matrix, ProductQuantizer, SENTINEL, bf16, f16};
use std::sync::Arc;

fn context(ordinal: usize) -> Context {
    match Device::cuda(ordinal).expect("the simulated device opens") {
        Device::Cuda(context) => context,
        other => panic!("a CUDA device, not {other}"),
    }
}

/// All parts in one launch, and one part after the other by every design of the filter pass.
fn machines() -> [Machine; 4] {
    ["auto", "simt", "cublas", "tensor"].map(|name| Machine::new().variable("CODEWORD_CUDA_GEMM", name))
}

/// Bytes before the codes, in memory that begins at a multiple of 256.
const PLACES: [usize; 4] = [0, 1, 2, 7];

/// A quantizer on a device, its twin on the processor, and a stream.
struct Setup {
    stream: Arc<CudaStream>,
    quantizer: ProductQuantizer,
    on_cpu: ProductQuantizer,
}

impl Setup {
    fn new(codewords: &Matrix<f32>, m: usize) -> Setup {
        let context = context(0);
        Setup {
            stream: context.new_stream().unwrap(),
            quantizer: ProductQuantizer::new(codewords.view(), m, &Device::Cuda(context)).unwrap(),
            on_cpu: ProductQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap(),
        }
    }

    fn workspace<T: Element>(&self, rows: usize) -> ProductWorkspace<T> {
        ProductWorkspace::new(&self.quantizer, &self.stream, rows).unwrap()
    }

    fn upload<T: DeviceRepr>(&self, values: &[T]) -> CudaSlice<T> {
        self.stream.clone_htod(values).unwrap()
    }

    fn room(&self, n: usize) -> CudaSlice<u8> {
        self.stream.alloc_zeros(n * self.quantizer.code_size()).unwrap()
    }

    fn download(&self, codes: &CudaSlice<u8>) -> Vec<u8> {
        self.stream.clone_dtoh(codes).unwrap()
    }

    /// What workspaces of the single parts count in all.
    fn tiers_of_parts<T: Element + DeviceRepr>(
        &self,
        x: &CudaView<'_, T>,
        n: usize,
        stride: usize,
        rows: usize,
    ) -> AssignStats {
        let width = self.quantizer.d() / self.quantizer.m();
        let mut labels = self.stream.alloc_zeros::<u32>(n).unwrap();
        let mut sq_distances = self.stream.alloc_zeros::<f32>(n).unwrap();
        let mut sum = AssignStats::default();
        for (s, codebook) in self.quantizer.codebooks().iter().enumerate() {
            let part = x.slice(s * width..);
            let view = MatrixView::with_stride(&part, n, width, stride).unwrap();
            let mut workspace = Workspace::<T>::new(codebook, &self.stream, rows).unwrap();
            workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
            let AssignStats { first, second, f64, exact } = workspace.check().unwrap();
            sum.first += first;
            sum.second += second;
            sum.f64 += f64;
            sum.exact += exact;
        }
        sum
    }

    /// Encodes `values`, rows `stride` apart, in blocks of `rows`, into codes that begin at each of `places`, and asserts
    /// that the processor's are the same and that the bytes around stay.
    fn assert_same<T: Element + DeviceRepr>(
        &self,
        name: &str,
        values: &[T],
        n: usize,
        stride: usize,
        rows: usize,
        places: &[usize],
    ) {
        self.assert_same_from(name, values, 0, n, stride, rows, places);
    }

    /// The same of vectors that begin with element `first`.
    #[allow(clippy::too_many_arguments)] // where they lie, how they go through, and where codes go
    fn assert_same_from<T: Element + DeviceRepr>(
        &self,
        name: &str,
        values: &[T],
        first: usize,
        n: usize,
        stride: usize,
        rows: usize,
        places: &[usize],
    ) {
        let (d, size) = (self.quantizer.d(), self.quantizer.code_size());
        let on_host = codeword::MatrixView::with_stride(&values[first..], n, d, stride).unwrap();
        let expected = self.on_cpu.encode(on_host).unwrap();
        let all = self.upload(values);
        let x = all.slice(first..);
        for &before in places {
            let mut codes = self.upload(&vec![0xa5u8; before + n * size + 5]);
            let mut workspace = self.workspace::<T>(rows);
            let view = MatrixView::with_stride(&x, n, d, stride).unwrap();
            workspace.encode(view, &mut codes.slice_mut(before..before + n * size)).unwrap();
            let stats = workspace.check().unwrap();
            assert_eq!(total(stats), (n * self.quantizer.m()) as u64, "{name}: {stats:?}");
            // Left to itself, a part alone has its labels by another design than all at once, which settles other rows.
            if std::env::var("CODEWORD_CUDA_GEMM").is_ok_and(|design| design != "auto") {
                assert_eq!(stats, self.tiers_of_parts(&x, n, stride, rows), "{name}: tiers");
            }
            let got = self.download(&codes);
            assert!(got[before..before + n * size] == expected, "{name}: codes at {before} differ");
            let around = [&got[..before], &got[before + n * size..]].concat();
            assert!(around.iter().all(|&byte| byte == 0xa5), "{name}: bytes beside codes at {before} are written");
        }
    }
}

#[test]
fn codes_of_few_bits_and_of_many_are_those_of_the_processor() {
    pass_on_each(machines(), "encode::codes_of_few_bits_and_of_many_are_those_of_the_processor", || {
        let mut numbers = Numbers::new(141);
        // 1, 4, 5, 8, 8, 9, 9 and 11 bits; in one launch where it may be, but for 256 x 1, 300 x 2 and 1100 x 2.
        for (n, m, k, width, rows) in [
            (37, 11, 2, 1, 37),
            (130, 3, 16, 2, 129),
            (41, 7, 20, 3, 10),
            (270, 6, 200, 2, 264),
            (3, 1, 256, 1, 2),
            (19, 3, 300, 2, 8),
            (19, 3, 300, 4, 8),
            (23, 3, 1100, 2, 9),
        ] {
            let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
            let x = numbers.gaussians(n * m * width);
            let name = format!("{n} rows, {m} x {k} x {width}, in blocks of {rows}");
            Setup::new(&codewords, m).assert_same(&name, &x, n, m * width, rows, &PLACES);
        }
    });
}

/// Blocks that take words in turn, which needs more codes than rows of these tests make.
#[test]
fn labels_of_any_bits_are_packed_as_the_processor_does() {
    Machine::new().pass("encode::labels_of_any_bits_are_packed_as_the_processor_does", || {
        let mut numbers = Numbers::new(148);
        for bits in 1..=16u32 {
            let k = 1 << bits;
            for (n, m) in [(1, 1), (701, 1), (700, 3), (301, 9)] {
                let quantizer = ProductQuantizer::new(matrix(vec![0.0f32; m * k], m * k, 1).view(), m, &Device::cpu());
                let quantizer = quantizer.unwrap();
                // [n, m], the sentinel among them; all bits set is what is left of it.
                let label = |i: usize| if i % 17 == 3 { SENTINEL } else { numbers.below(k) as u32 };
                let labels: Vec<u32> = (0..n * m).map(label).collect();
                let below: Vec<u32> = labels.iter().map(|&label| label.min(k as u32 - 1)).collect();
                let expected = quantizer.pack(&below).unwrap();
                let columns: Vec<u32> = (0..m * n).map(|at| labels[at % n * m + at / n]).collect();

                let entry = ["pack_codes_bits", "pack_codes_u8", "pack_codes_u16"];
                let (stream, function) =
                    open("pack_codes", entry[usize::from(bits == 8) + 2 * usize::from(bits == 16)]);
                let columns = stream.clone_htod(&columns).unwrap();
                for before in [0, 1, 2, 3] {
                    let mut codes = stream.clone_htod(&vec![0xa5u8; before + expected.len() + 2]).unwrap();
                    let (n32, m32) = (n as u32, m as u32);
                    let mut own = codes.slice_mut(before..);
                    let mut launch = stream.launch_builder(&function);
                    launch.arg(&columns).arg(&mut own).arg(&n32).arg(&m32);
                    if !matches!(bits, 8 | 16) {
                        launch.arg(&bits);
                    }
                    // SAFETY: the arguments are those of the entry point, of the sizes that its header names.
                    unsafe { launch.launch(threads(2, 256)) }.unwrap();
                    let got = stream.clone_dtoh(&codes).unwrap();
                    let name = format!("{n} x {m} of {bits} bits at {before}");
                    assert!(got[before..before + expected.len()] == expected, "{name}: codes differ");
                    let around = [&got[..before], &got[before + expected.len()..]].concat();
                    assert!(around.iter().all(|&byte| byte == 0xa5), "{name}: bytes beside the codes are written");
                }
            }
        }
    });
}

#[test]
fn codes_of_sixteen_bits_are_those_of_the_processor() {
    Machine::new().pass("encode::codes_of_sixteen_bits_are_those_of_the_processor", || {
        let (n, m, k) = (5, 2, 33_000);
        let mut numbers = Numbers::new(142);
        let codewords = matrix(numbers.gaussians(m * k), m * k, 1);
        let setup = Setup::new(&codewords, m);
        assert_eq!((setup.quantizer.bits(), setup.quantizer.code_size()), (16, 4));
        setup.assert_same("sixteen bits", &numbers.gaussians(n * m), n, m, n, &[3]);
    });
}

/// Parts that rows are read four and two values at a time for, and such as they are not.
#[test]
fn parts_of_many_dimensions_lie_anywhere() {
    let machine = Machine::new().variable("CODEWORD_CUDA_GEMM", "tensor");
    pass_on_each(
        [machine.clone(), machine.set("CAPABILITY", 90).seed(3)],
        "encode::parts_of_many_dimensions_lie_anywhere",
        || {
            let mut numbers = Numbers::new(149);
            for (m, width) in [(6, 16), (3, 12), (2, 24), (3, 20), (2, 32), (3, 10), (16, 8), (5, 4), (2, 25)] {
                let (n, k, d) = (37, 20, m * width);
                let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
                let setup = Setup::new(&codewords, m);
                for (gap, first) in [(0, 0), (0, 1), (1, 0), (2, 2), (4, 0), (4, 1), (4, 4)] {
                    // Before the first vector and between them lies NaN.
                    let mut x = vec![f32::NAN; first];
                    for _ in 0..n {
                        x.extend(numbers.gaussians(d));
                        x.extend(vec![f32::NAN; gap]);
                    }
                    let name = format!("{m} x {width}, {gap} between, from {first}");
                    setup.assert_same_from(&name, &x, first, n, d + gap, n, &[0]);
                    let halves: Vec<f16> = x.iter().map(|&value| f16::from_f32(value)).collect();
                    setup.assert_same_from(&format!("{name}, f16"), &halves, first, n, d + gap, n, &[0]);
                    let bfloats: Vec<bf16> = x.iter().map(|&value| bf16::from_f32(value)).collect();
                    setup.assert_same_from(&format!("{name}, bf16"), &bfloats, first, n, d + gap, n, &[0]);
                }
            }
        },
    );
}

#[test]
fn vectors_of_any_type_with_gaps_between_the_rows() {
    pass_on_each(machines(), "encode::vectors_of_any_type_with_gaps_between_the_rows", || {
        fn with_gaps<T: Element + DeviceRepr>(name: &str, round: impl Fn(f32) -> T, nan: T) {
            let mut numbers = Numbers::new(143);
            // The second as wide as one launch takes, the third wider.
            for (n, m, k, width) in [(23, 3, 17, 5), (20, 2, 40, 32), (20, 3, 40, 33)] {
                let (d, stride) = (m * width, m * width + 3);
                let setup = Setup::new(&matrix(numbers.gaussians(m * k * width), m * k, width), m);
                let mut gaps = vec![nan; (n - 1) * stride + d];
                for row in gaps.chunks_mut(stride) {
                    row[..d].iter_mut().for_each(|value| *value = round(numbers.gaussian()));
                }
                setup.assert_same(&format!("{name}, {m} x {k} x {width}"), &gaps, n, stride, 10, &[0]);
            }
        }
        with_gaps("f32", |value| value, f32::NAN);
        with_gaps("f16", f16::from_f32, f16::NAN);
        with_gaps("bf16", bf16::from_f32, bf16::NAN);
    });
}

#[test]
fn parts_with_nothing_to_choose_from_stand_beside_others() {
    pass_on_each(machines(), "encode::parts_with_nothing_to_choose_from_stand_beside_others", || {
        let mut numbers = Numbers::new(144);
        let (n, k, width) = (70, 150, 2);
        let mut values = numbers.gaussians(k * width);
        values.extend([0.5; 150 * 2]);
        values.extend(numbers.integers(k * width, 1));
        let setup = Setup::new(&matrix(values, 3 * k, width), 3);
        setup.assert_same("three kinds", &numbers.gaussians(n * 3 * width), n, 3 * width, 33, &PLACES);
    });
}

#[test]
fn check_names_the_first_bad_value_in_its_row_and_other_codes_are_right() {
    pass_on_each(machines(), "encode::check_names_the_first_bad_value_in_its_row_and_other_codes_are_right", || {
        // Where the second and the last part of row 37 have their first bad values: that of the last is nearer to the start
        // of its part, and of 160 columns it is looked at by the lane that finds the other.
        for (width, first, of_last) in [(5, 4, 1), (40, 24, 8)] {
            let (n, m, k) = (50, 4, 20);
            let d = m * width;
            let mut numbers = Numbers::new(145);
            let setup = Setup::new(&matrix(numbers.gaussians(m * k * width), m * k, width), m);
            let mut workspace = setup.workspace::<f32>(16);
            let clean = numbers.gaussians(n * d);
            let expected = setup.on_cpu.encode(codeword::MatrixView::new(&clean, n, d).unwrap()).unwrap();
            let bad = [
                (41, 1, 0, f32::NAN),
                (37, 3, of_last, f32::NAN),
                (37, 1, first, f32::NEG_INFINITY),
                (48, 2, 3, f32::INFINITY),
            ];
            let mut dirty = clean.clone();
            let mut numbers_expected = setup.on_cpu.unpack(&expected).unwrap();
            for (row, part, col, value) in bad {
                dirty[row * d + part * width + col] = value;
                numbers_expected[row * m + part] = 31;
            }
            let (x_clean, x_dirty, mut codes) = (setup.upload(&clean), setup.upload(&dirty), setup.room(n));
            let x = |values| MatrixView::new(values, n, d).unwrap();
            workspace.encode(x(&x_dirty), &mut codes).unwrap();
            let error = workspace.check().unwrap_err();
            let Error::NonFinite { op: "ProductWorkspace::check", row: 37, col, got, .. } = error else {
                panic!("{error}")
            };
            assert_eq!((col, got), (width + first, f32::NEG_INFINITY));
            assert_eq!(setup.on_cpu.unpack(&setup.download(&codes)).unwrap(), numbers_expected);

            // Nothing of it is left.
            workspace.encode(x(&x_clean), &mut codes).unwrap();
            assert_eq!(total(workspace.check().unwrap()), (n * m) as u64);
            assert!(setup.download(&codes) == expected);

            // Of two calls the lowest row, which is a good one in the other call.
            let later = setup.upload(&dirty[38 * d..]);
            let mut fewer = setup.room(12);
            workspace.encode(MatrixView::new(&later, 12, d).unwrap(), &mut fewer).unwrap();
            workspace.encode(x(&x_dirty), &mut codes).unwrap();
            // Between its rows there are values that are not looked at.
            let gaps: Vec<f32> = clean.chunks(d).flat_map(|row| [row, &[f32::INFINITY][..]].concat()).collect();
            let gaps = setup.upload(&gaps);
            workspace.encode(MatrixView::with_stride(&gaps, n, d, d + 1).unwrap(), &mut codes).unwrap();
            let error = workspace.check().unwrap_err();
            let Error::NonFinite { row: 3, col, got, .. } = error else { panic!("{error}") };
            assert!(col == width && got.is_nan(), "{error}");
            workspace.check().unwrap();

            // Of two calls with the same bad row one of its two places: in each it is the first of its call.
            let mut other = clean.clone();
            other[37 * d + 2] = f32::INFINITY;
            let other = setup.upload(&other);
            for calls in [[&other, &x_dirty], [&x_dirty, &other]] {
                calls.iter().for_each(|&values| workspace.encode(x(values), &mut codes).unwrap());
                let error = workspace.check().unwrap_err();
                let Error::NonFinite { row: 37, col, got, .. } = error else { panic!("{error}") };
                assert!([(2, f32::INFINITY), (width + first, f32::NEG_INFINITY)].contains(&(col, got)), "{error}");
                workspace.check().unwrap();
            }
        }
    });
}

#[test]
fn a_bad_value_where_there_is_nothing_to_choose_is_named_in_every_type() {
    pass_on_each(machines(), "encode::a_bad_value_where_there_is_nothing_to_choose_is_named_in_every_type", || {
        fn is_named<T: Element + DeviceRepr>(round: impl Fn(f32) -> T) {
            // The second part has one distinct codeword.
            let setup = Setup::new(&matrix(vec![0.0f32, 1.0, 2.0, 2.0], 4, 1), 2);
            // The last row of a block.
            let mut workspace = setup.workspace::<T>(2);
            let x = setup.upload(&[0.0f32, 0.0, 1.0, f32::INFINITY, f32::NAN, 0.0].map(round));
            let mut codes = setup.room(3);
            workspace.encode(MatrixView::new(&x, 3, 2).unwrap(), &mut codes).unwrap();
            let error = workspace.check().unwrap_err();
            assert!(matches!(error, Error::NonFinite { row: 1, col: 1, got: f32::INFINITY, .. }), "{error}");
            assert_eq!(setup.download(&codes), [0b00, 0b11, 0b01]);
        }
        is_named(|value| value);
        is_named(f16::from_f32);
        is_named(bf16::from_f32);
    });
}

#[test]
fn nothing_waits_for_the_device_or_takes_memory_before_check() {
    if !simulated::is_available() {
        return;
    }
    let name = "encode::nothing_waits_for_the_device_or_takes_memory_before_check";
    for (width, launches) in [("4", 3 * 3 * 3), ("40", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        // Work of this device runs when somebody waits for it, and not before.
        let machine = Machine::new().set("SEED", 0).set("TRACE", trace.display()).variable("WIDTH", width);
        let output = machine.variable("LAUNCHES", launches).run(name, || {
            let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
            let lines = || {
                let text = std::fs::read_to_string(std::env::var("CODEWORD_SIM_TRACE").unwrap()).unwrap();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            };
            let (n, m, k, width) = (300, 2, 9, number("WIDTH"));
            let mut numbers = Numbers::new(146);
            let setup = Setup::new(&matrix(numbers.gaussians(m * k * width), m * k, width), m);
            let mut workspace = setup.workspace::<f32>(100);
            assert_eq!((workspace.quantizer().m(), workspace.stream().cu_stream()), (m, setup.stream.cu_stream()));
            let values = setup.upload(&numbers.gaussians(n * m * width));
            let (x, mut codes) = (MatrixView::new(&values, n, m * width).unwrap(), setup.room(n));
            let before = lines().len();
            (0..3).for_each(|_| workspace.encode(x, &mut codes).unwrap());
            let queued = lines().split_off(before);
            let count = |what: &dyn Fn(&&String) -> bool| queued.iter().filter(what).count();
            let launched = count(&|line| line.contains(" launch "));
            assert!(launched == number("LAUNCHES") || (number("LAUNCHES") == 0 && launched > 27), "{queued:#?}");
            assert_eq!(count(&|line| line.starts_with("run ")), 0, "somebody waited: {queued:#?}");
            assert_eq!(count(&|line| line.starts_with("allocate ")), 0, "memory was taken: {queued:#?}");
            assert_eq!(count(&|line| line.contains(" copy_")), 0, "something was copied: {queued:#?}");
            // The first call among these.
            assert_eq!(count(&|line| line.starts_with("call cuModule")), 0, "kernels were loaded: {queued:#?}");
            workspace.check().unwrap();
            assert!(lines().split_off(before).iter().any(|line| line.starts_with("run ")));
        });
        assert!(output.status.success(), "{}", simulated::text(&output));
    }
}

#[test]
fn codes_go_to_memory_of_others_and_the_quantizer_may_go_before_the_work() {
    Machine::new().pass("encode::codes_go_to_memory_of_others_and_the_quantizer_may_go_before_the_work", || {
        let (n, m, k, width) = (40, 3, 12, 2);
        let mut numbers = Numbers::new(147);
        let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
        let Setup { stream, quantizer, on_cpu } = Setup::new(&codewords, m);
        let x = numbers.gaussians(n * m * width);
        let expected = on_cpu.encode(codeword::MatrixView::new(&x, n, m * width).unwrap()).unwrap();
        // Written, and read, on a stream that is not the workspace's.
        let foreign = context(0).new_stream().unwrap();
        let values = foreign.clone_htod(&x).unwrap();
        let mut codes = foreign.alloc_zeros::<u8>(expected.len()).unwrap();
        {
            let (address, _used) = codes.device_ptr_mut(&foreign);
            // SAFETY: so many bytes lie there until the end of this test, all whose uses are on `foreign` or wait for it.
            let mut raw = unsafe { Raw::codes(address, expected.len(), &foreign) };
            let mut workspace = ProductWorkspace::<f32>::new(&quantizer, &stream, 64).unwrap();
            drop(quantizer);
            workspace.encode(MatrixView::new(&values, n, m * width).unwrap(), &mut raw).unwrap();
            // Gone before anything ran.
        }
        drop(values);
        assert_eq!(foreign.clone_dtoh(&codes).unwrap(), expected);
    });
}

#[test]
fn what_does_not_fit_together_is_refused_before_anything_runs() {
    let two = Machine::new().set("DEVICES", 2);
    two.pass("encode::what_does_not_fit_together_is_refused_before_anything_runs", || {
        let setup = Setup::new(&matrix(vec![0.0f32, 1.0, 2.0, 3.0], 4, 1), 2);
        let mut workspace = setup.workspace::<f32>(8);
        let values = setup.upload(&[0.0f32; 12]);
        let mut codes = setup.room(4);
        let text = |error: Error| error.to_string();

        let error = workspace.encode(MatrixView::new(&values, 4, 3).unwrap(), &mut codes).unwrap_err();
        assert_eq!(
            text(error),
            "ProductWorkspace::encode: expected vectors of 2 columns, 1 for each of 2 parts, got 3"
        );
        let error = workspace.encode(MatrixView::new(&values, 6, 2).unwrap(), &mut codes).unwrap_err();
        assert_eq!(text(error), "ProductWorkspace::encode: expected 6 bytes of codes, got 4");
        let none = values.slice(..0);
        workspace.encode(MatrixView::new(&none, 0, 2).unwrap(), &mut codes.slice_mut(..0)).unwrap();
        let new = |quantizer: &ProductQuantizer, stream: &Arc<CudaStream>, rows: usize| {
            ProductWorkspace::<f32>::new(quantizer, stream, rows).map(|_| ()).unwrap_err()
        };
        for rows in [0, 1 << 32] {
            let error = new(&setup.quantizer, &setup.stream, rows);
            assert!(matches!(error, Error::InvalidParameter { name: "rows", .. }), "{error}");
        }

        // Another device, and none.
        let stream = context(1).new_stream().unwrap();
        let x = values.slice(..8);
        let x = MatrixView::new(&x, 4, 2).unwrap();
        let elsewhere = stream.clone_htod(&[0.0f32; 8]).unwrap();
        let error = workspace.encode(MatrixView::new(&elsewhere, 4, 2).unwrap(), &mut codes).unwrap_err();
        assert!(error.to_string().contains("vectors on cuda:0, got cuda:1"), "{error}");
        let mut codes_elsewhere = stream.alloc_zeros::<u8>(4).unwrap();
        let error = workspace.encode(x, &mut codes_elsewhere).unwrap_err();
        assert!(matches!(error, Error::DeviceMismatch { what: "codes", .. }), "{error}");
        let error = new(&setup.quantizer, &stream, 8);
        assert!(matches!(error, Error::DeviceMismatch { what: "codebook", .. }), "{error}");
        let error = new(&setup.on_cpu, &setup.stream, 8);
        assert!(error.to_string().contains("got cpu"), "{error}");
        // None of this is left behind.
        assert_eq!(total(workspace.check().unwrap()), 0);
        workspace.encode(x, &mut codes).unwrap();
        assert_eq!(total(workspace.check().unwrap()), 8);
    });
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let name = "encode::each_refused_allocation_is_an_error_and_leaves_nothing_behind";
    let refusals = Machine::new().variable("CODEWORD_CUDA_GEMM", "simt").refuse_each(name, encode_one);
    assert!(refusals > 20, "{refusals}");
}

/// What tensor cores have no memory for is done without them; nothing is refused later than by `new`.
#[test]
fn without_memory_for_one_launch_parts_take_turns_or_the_workspace_is_refused() {
    if !simulated::is_available() {
        return;
    }
    let name = "encode::without_memory_for_one_launch_parts_take_turns_or_the_workspace_is_refused";
    let outcomes = Machine::new().refuse_first(name, 59, encode_one);
    // Codebooks have to be there, what tensor cores want does not, what the workspace is made of does; nobody asked for the last.
    assert!(outcomes.contains("rd") && outcomes.contains("dr") && outcomes.ends_with('d'), "{outcomes}");
}

fn encode_one() -> Result<(), Error> {
    let refused = |error: DriverError| Error::Cuda {
        op: "test",
        asked: "memory of the caller".into(),
        got: format!("{:?}", error.0),
        way_out: "",
        source: None,
    };
    let context = context(0);
    let stream = context.new_stream()?;
    let x = stream.clone_htod(&[1.0, 3.0, 0.0, 2.25].map(f16::from_f32)).map_err(refused)?;
    let mut codes = stream.alloc_zeros::<u8>(2).map_err(refused)?;
    let codewords = matrix(vec![0.0f32, 1.0, 2.0, 3.0], 4, 1);
    let quantizer = ProductQuantizer::new(codewords.view(), 2, &Device::Cuda(context.clone()))?;
    let mut workspace = ProductWorkspace::<f16>::new(&quantizer, &stream, 100)?;
    workspace.encode(MatrixView::new(&x, 2, 2)?, &mut codes).expect("nothing is refused to a call");
    workspace.check().expect("nothing is refused to a check");
    assert_eq!(stream.clone_dtoh(&codes).unwrap(), [0b11, 0b00]);
    Ok(())
}
