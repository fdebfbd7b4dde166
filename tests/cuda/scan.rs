//! Product codes that a CUDA device goes through: ids and distances are those of the documented sums, to the last bit.
//! Every test runs in a child process on the simulated driver, which executes the real kernels and reports what they do
//! wrong.

use crate::alone::{open, open_in};
use crate::common::{Numbers, assert_same_bits, matrix};
use crate::simulated::{self, Machine, pass_on_each};
use codeword::backend::cuda::shapes::{ADC_GROUP, ADC_THREADS};
use codeword::cuda::cudarc::driver::{LaunchConfig, PushKernelArg};
use codeword::{Device, Matrix, MatrixView, Neighbors, ProductQuantizer};

fn cuda() -> Device {
    Device::cuda(0).expect("the simulated device opens")
}

/// A quantizer of m sub-quantizers for vectors of m dimensions: codewords are numbers.
fn quantizer(numbers: &mut Numbers, m: usize, k: usize, device: &Device) -> ProductQuantizer {
    let codewords = matrix(numbers.gaussians(m * k), m * k, 1);
    ProductQuantizer::new(codewords.view(), m, device).expect("a quantizer")
}

fn codes_of(numbers: &mut Numbers, quantizer: &ProductQuantizer, n: usize) -> Vec<u8> {
    let (m, k) = (quantizer.m(), quantizer.k());
    let all: Vec<u32> = (0..n * m).map(|_| numbers.below(k) as u32).collect();
    quantizer.pack(&all).expect("numbers below k")
}

/// All codes by the documented sums, sorted.
fn by_sums(quantizer: &ProductQuantizer, codes: &[u8], queries: MatrixView<'_, f32>, r: usize) -> Neighbors {
    let (m, k) = (quantizer.m(), quantizer.k());
    let (tables, of_codes) = (quantizer.lut(queries).unwrap(), quantizer.unpack(codes).unwrap());
    let mut found = Neighbors { r, ..Neighbors::default() };
    for table in tables.chunks(m * k) {
        let distance = |code: &[u32]| {
            let mut sum = table[code[0] as usize];
            for s in 1..m {
                sum += table[s * k + code[s] as usize];
            }
            sum
        };
        let mut all: Vec<(f32, u32)> = of_codes.chunks(m).map(distance).zip(0..).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.sq_distances.extend(all[..r].iter().map(|it| it.0));
        found.ids.extend(all[..r].iter().map(|it| it.1));
    }
    found
}

fn assert_found(name: &str, quantizer: &ProductQuantizer, codes: &[u8], queries: &Matrix<f32>, r: usize) {
    let got = quantizer.search(codes, queries.view(), r).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = by_sums(quantizer, codes, queries.view(), r);
    assert_eq!(got.r, r, "{name}");
    assert_same_bits(name, &got.sq_distances, &expected.sq_distances);
    assert!(got.ids == expected.ids, "{name}: the ids differ");
}

/// Lines of the trace that launch a kernel of adc_scan.cu for numbers of these bits, and those that merge.
fn launches(bits: usize) -> (usize, usize) {
    let file = std::env::var("CODEWORD_SIM_TRACE").expect("the test sets it");
    let trace = std::fs::read_to_string(file).expect("the driver writes it");
    let count = |entry: &str| trace.lines().filter(|line| line.starts_with("submit ") && line.contains(entry)).count();
    (count(&format!("launch adc_scan_u{bits} ")), count("launch adc_scan_merge "))
}

#[test]
fn the_device_goes_through_codes_of_any_size() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new().set("TRACE", folder.path().join("trace").display());
    let output = machine.run("scan::the_device_goes_through_codes_of_any_size", || {
        let mut numbers = Numbers::new(101);
        for (m, k, bits) in [
            (1, 1, 4),
            (2, 2, 4),
            (8, 16, 4),
            (9, 13, 4),
            (3, 40, 8),
            (1, 256, 8),
            (4, 256, 8),
            (5, 17, 8),
            (3, 300, 16),
        ] {
            // Two groups of codes and a part; two tiles of queries, of which one has a single query.
            let (n, q) = (261, 5);
            let quantizer = quantizer(&mut numbers, m, k, &cuda());
            let codes = codes_of(&mut numbers, &quantizer, n);
            let queries = matrix(numbers.gaussians(q * m), q, m);
            let before = launches(bits);
            assert_found(&format!("{m} x {k}"), &quantizer, &codes, &queries, 10);
            let after = launches(bits);
            assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "{m} x {k}: launches of {bits} bits");
            let some = &codes[..3 * quantizer.code_size()];
            let symmetric = quantizer.search_symmetric(&codes, some, 10).unwrap();
            assert_eq!(symmetric, by_sums(&quantizer, &codes, quantizer.decode(some).unwrap().view(), 10));
            assert_eq!(launches(bits).0, after.0 + 1, "{m} x {k}: symmetric");
        }
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn numbers_of_codes_and_neighbours_around_every_border() {
    Machine::new().pass("scan::numbers_of_codes_and_neighbours_around_every_border", || {
        let mut numbers = Numbers::new(102);
        let quantizer = quantizer(&mut numbers, 3, 16, &cuda());
        // A group has 128 codes, a round of a block of threads 1024; a list of r is cut when it has more than 2 r.
        for (n, q, rs) in [
            (1, 1, &[1][..]),
            (127, 3, &[1, 2, 127]),
            (128, 4, &[100, 128]),
            (129, 5, &[63, 129]),
            (1023, 1, &[128, 1023]),
            (1024, 2, &[511, 512, 1024]),
            (1025, 9, &[1, 1024, 1025]),
            (3073, 3, &[129, 1500, 3073]),
        ] {
            let codes = codes_of(&mut numbers, &quantizer, n);
            let queries = matrix(numbers.gaussians(q * 3), q, 3);
            for &r in rs {
                assert_found(&format!("{r} of {n}, {q} queries"), &quantizer, &codes, &queries, r);
            }
        }
        let codes = codes_of(&mut numbers, &quantizer, 5);
        let none = quantizer.search(&codes, matrix(Vec::<f32>::new(), 0, 3).view(), 2).unwrap();
        assert_eq!(none, Neighbors { r: 2, ..Neighbors::default() });
    });
}

#[test]
fn equal_distances_come_by_id_and_infinite_ones_last() {
    Machine::new().pass("scan::equal_distances_come_by_id_and_infinite_ones_last", || {
        let mut numbers = Numbers::new(103);
        let (m, k, n) = (2, 5, 5000);
        // Distances to whole numbers: a handful for all codes.
        let codewords = matrix((0..m * k).map(|j| (j % k) as f32 - 1.0).collect(), m * k, 1);
        let quantizer = ProductQuantizer::new(codewords.view(), m, &cuda()).unwrap();
        let codes = codes_of(&mut numbers, &quantizer, n);
        let queries = matrix(vec![0.0, 0.0, 1.0, -1.0, 50.0, 2.0], 3, 2);
        for r in [1, 3, 100, 1023] {
            assert_found(&format!("ties, {r}"), &quantizer, &codes, &queries, r);
        }
        // The farther a code, the lower its number; then nothing but one code.
        let falling: Vec<u32> = (0..n).flat_map(|i| [4, (5 * (n - 1 - i) / n) as u32]).collect();
        assert_found("falling", &quantizer, &quantizer.pack(&falling).unwrap(), &queries, 7);
        assert_found("one", &quantizer, &quantizer.pack(&vec![3; n * m]).unwrap(), &queries, 100);
        // Entries beyond f32, and sums beyond it of entries that are not.
        let codewords = matrix(vec![0.0f32, 1.5e19, 1.8e19, 3e38, -3e38, 1.0, 0.0, 1.8e19, 2e19, -1.0], m * k, 1);
        let quantizer = ProductQuantizer::new(codewords.view(), m, &cuda()).unwrap();
        assert!(quantizer.lut(queries.view()).unwrap().iter().any(|entry| entry.is_infinite()));
        for r in [1, 100, n - 1, n] {
            assert_found(&format!("infinite, {r}"), &quantizer, &codes, &queries, r);
        }
        let far = quantizer.pack(&vec![3; n * m]).unwrap();
        assert_found("nothing finite", &quantizer, &far, &matrix(vec![-3e38, 0.0], 1, 2), 30);
    });
}

#[test]
fn splits_of_the_codes_are_merged_in_whatever_order_they_ran() {
    for seed in [0, 1, 2] {
        let machine = Machine::new().seed(seed).set("CHECK", u32::from(seed < 2));
        machine.pass("scan::splits_of_the_codes_are_merged_in_whatever_order_they_ran", || {
            let mut numbers = Numbers::new(104);
            let quantizer = quantizer(&mut numbers, 2, 7, &cuda());
            // Eight rounds to a split: three of them, the last of less.
            let codes = codes_of(&mut numbers, &quantizer, 17_000);
            let queries = matrix(numbers.integers(2 * 2, 1), 2, 2);
            assert_found("splits", &quantizer, &codes, &queries, 40);
        });
    }
}

#[test]
fn a_small_card_takes_codes_in_blocks_and_queries_in_passes() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new().set("TRACE", folder.path().join("trace").display()).set("CHECK", 0);
    let output = machine.run("scan::a_small_card_takes_codes_in_blocks_and_queries_in_passes", || {
        let Device::Cuda(context) = cuda() else { panic!("a CUDA device") };
        let limited = Device::Cuda(context.with_max_memory(1 << 19));
        let mut numbers = Numbers::new(105);
        // 64 KiB for tables and results, 16 kB for each query, and a code takes 12 bytes.
        let (m, n, q) = (9, 40_000, 5);
        let quantizer = quantizer(&mut numbers, m, 200, &limited);
        let codes = codes_of(&mut numbers, &quantizer, n);
        let queries = matrix(numbers.gaussians(q * m), q, m);
        assert_found("in blocks", &quantizer, &codes, &queries, 20);
        let (scans, merges) = launches(8);
        assert_eq!((scans, merges), (8, 4), "two passes, each of two lanes, each of two blocks");
        // With less than four queries take, the processor does it.
        let none = Device::Cuda(context.with_max_memory(100_000));
        let codewords = matrix(numbers.gaussians(2 * 3000), 2 * 3000, 1);
        let quantizer = ProductQuantizer::new(codewords.view(), 2, &none).unwrap();
        let codes = codes_of(&mut numbers, &quantizer, 300);
        assert_found("by the processor", &quantizer, &codes, &matrix(numbers.gaussians(2), 1, 2), 20);
        assert_eq!(launches(16), (0, merges));
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn what_a_call_leaves_behind_serves_the_next_and_no_other() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new().set("TRACE", folder.path().join("trace").display());
    let output = machine.run("scan::what_a_call_leaves_behind_serves_the_next_and_no_other", || {
        let allocations = || {
            let trace = std::fs::read_to_string(std::env::var("CODEWORD_SIM_TRACE").unwrap()).unwrap();
            trace.lines().filter(|line| line.starts_with("allocate ")).count()
        };
        let mut numbers = Numbers::new(106);
        let quantizer = quantizer(&mut numbers, 2, 9, &cuda());
        // Fewer codes go through what was made for more, and as many queries by fours through the same.
        for (n, q, r, is_new) in [
            (900, 3, 5, true),
            (900, 3, 5, false),
            (200, 2, 5, false),
            (901, 3, 5, true),
            (300, 9, 5, true),
            (300, 9, 6, true),
            (7, 9, 6, false),
        ] {
            let codes = codes_of(&mut numbers, &quantizer, n);
            let queries = matrix(numbers.gaussians(q * 2), q, 2);
            let name = format!("{r} of {n}, {q} queries");
            // Asks for the tables, too, which it keeps room for.
            quantizer.lut(queries.view()).unwrap();
            let before = allocations();
            assert_found(&name, &quantizer, &codes, &queries, r);
            assert_eq!(allocations() > before, is_new, "{name}");
        }
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let name = "scan::each_refused_allocation_is_an_error_and_leaves_nothing_behind";
    let refusals = Machine::new().refuse_each(name, || {
        let codewords = matrix(vec![0.0f32, 1.0, 2.0, 4.0], 4, 1);
        let quantizer = ProductQuantizer::new(codewords.view(), 2, &Device::cuda(0)?)?;
        let found = quantizer.search(&[0, 1, 2, 3], matrix(vec![0.0f32, 4.0], 1, 2).view(), 1)?;
        assert_eq!(found.ids, [2]);
        Ok(())
    });
    // Two codebooks, their lanes for tables, one lane for codes.
    assert!(refusals > 40, "{refusals}");
}

#[test]
fn tables_beyond_shared_memory_are_read_where_they_are() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let machine =
        Machine::new().set("TRACE", folder.path().join("trace").display()).set("CAPABILITY", 86).set("CHECK", 0);
    let output = machine.run("scan::tables_beyond_shared_memory_are_read_where_they_are", || {
        let mut numbers = Numbers::new(107);
        // 99 KiB for a block, less what the kernel has for itself: tables of four queries, two, one, none.
        for (k, shared, entry) in [
            (2909, 2909 * 2 * 16, "adc_scan_u16 "),
            (2912, 2912 * 2 * 8, "adc_scan_two_u16 "),
            (5820, 5820 * 2 * 4, "adc_scan_one_u16 "),
            (11_640, 0, "adc_scan_u16 "),
        ] {
            let quantizer = quantizer(&mut numbers, 2, k, &cuda());
            let codes = codes_of(&mut numbers, &quantizer, 300);
            assert_found(&format!("{k}"), &quantizer, &codes, &matrix(numbers.gaussians(2 * 3), 3, 2), 3);
            let trace = std::fs::read_to_string(std::env::var("CODEWORD_SIM_TRACE").unwrap()).unwrap();
            let last = trace.lines().rfind(|line| line.contains("launch adc_scan") && !line.contains("merge")).unwrap();
            assert!(last.contains(entry), "{k}: {last}");
            assert!(last.ends_with(&format!(" shared={shared}")), "{k}: {last}");
        }
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

/// The keys that kernels launched alone find: of codes `first` on, and then of as many again from `second` on, in two
/// launches of two splits.
struct Alone {
    bits: u32,
    tile: usize,
    m: usize,
    k: usize,
    n: usize,
    r: usize,
    starts: [u32; 2],
    in_shared: bool,
}

impl Alone {
    /// By tables for each of three queries.
    fn keys(&self, tables: &[f32], numbers: &[u32]) -> Vec<u64> {
        let Alone { bits, tile, m, k, n, r, starts, in_shared } = *self;
        let name = ["", "_one", "_two", "", ""][tile];
        let (stream, scan) = open("adc_scan", &format!("adc_scan{name}_u{bits}"));
        let (q, queries, splits, capacity) = (3usize, 8usize, 2usize, ADC_THREADS as usize * 4 + r);
        let tiles: Vec<f32> = (0..q.next_multiple_of(tile) * m * k)
            .map(|i| {
                let query = i / (tile * m * k) * tile + i % tile;
                if query < q { tables[query * m * k + i / tile % (m * k)] } else { 0.0 }
            })
            .collect();
        let (each, group) = (32 / bits as usize, ADC_GROUP as usize);
        let (width, groups) = (m.div_ceil(each), n.div_ceil(group));
        let mut words = vec![0u32; groups * width * group];
        for (i, &number) in numbers.iter().enumerate() {
            let (i, s) = (i / m, i % m);
            words[(i / group * width + s / each) * group + i % group] |= number << (s % each * bits as usize);
        }
        let (words, tables) = (stream.clone_htod(&words).unwrap(), stream.clone_htod(&tiles).unwrap());
        // SAFETY: no kernel reads it before one has written it, or the driver says so.
        let mut lists = unsafe { stream.alloc::<u64>(splits * queries * capacity) }.unwrap();
        let mut counts = stream.alloc_zeros::<u32>(splits * queries).unwrap();
        let mut limits = stream.clone_htod(&vec![u64::MAX; splits * queries]).unwrap();
        let size = |value: usize| value as u32;
        let (n, m, k, q, queries, r, capacity) =
            (size(n), size(m), size(k), size(q), size(queries), size(r), size(capacity));
        let shared_mem_bytes = if in_shared { size(tile) * 4 * m * k } else { 0 };
        let config = LaunchConfig {
            grid_dim: (size(splits), q.div_ceil(size(tile)), 1),
            block_dim: (ADC_THREADS, 1, 1),
            shared_mem_bytes,
        };
        for first in starts {
            let mut launch = stream.launch_builder(&scan);
            launch.arg(&words).arg(&tables).arg(&mut lists).arg(&mut counts).arg(&mut limits);
            let in_shared = u32::from(in_shared);
            launch.arg(&first).arg(&n).arg(&m).arg(&k).arg(&q).arg(&queries).arg(&r).arg(&capacity);
            if tile == 4 {
                launch.arg(&in_shared);
            }
            // SAFETY: arguments as the kernel's header has them.
            unsafe { launch.launch(config) }.unwrap();
        }
        let merge = open_in(&stream, "adc_scan", "adc_scan_merge");
        let mut keys = stream.alloc_zeros::<u64>((q * r) as usize).unwrap();
        let splits = size(splits);
        let mut launch = stream.launch_builder(&merge);
        launch.arg(&lists).arg(&counts).arg(&mut keys).arg(&splits).arg(&queries).arg(&r).arg(&capacity);
        // SAFETY: as above.
        unsafe { launch.launch(LaunchConfig { grid_dim: (q, 1, 1), shared_mem_bytes: 0, ..config }) }.unwrap();
        stream.clone_dtoh(&keys).unwrap()
    }

    /// The same by going through all.
    fn expected(&self, tables: &[f32], numbers: &[u32]) -> Vec<u64> {
        let Alone { m, k, n, r, starts, .. } = *self;
        let mut all = Vec::new();
        for table in tables.chunks(m * k) {
            let distance = |code: &[u32]| {
                code.iter().enumerate().fold(0.0f32, |sum, (s, &number)| sum + table[s * k + number as usize])
            };
            let distances: Vec<u64> = numbers.chunks(m).map(|code| u64::from(distance(code).to_bits()) << 32).collect();
            let ids = |first: u32| (0..n).map(move |i| u64::from(first) + i as u64);
            let of_ids = |first| ids(first).zip(&distances).map(|(id, distance)| distance | id);
            let mut keys: Vec<u64> = starts.into_iter().flat_map(of_ids).collect();
            keys.sort_unstable();
            keys.resize(r, u64::MAX);
            all.extend(keys);
        }
        all
    }
}

#[test]
fn kernels_launched_alone_go_on_with_what_they_found_up_to_the_last_id() {
    let name = "scan::kernels_launched_alone_go_on_with_what_they_found_up_to_the_last_id";
    pass_on_each([Machine::new(), Machine::new().seed(1)], name, || {
        let mut numbers = Numbers::new(108);
        for (bits, tile, m, k) in [
            (4, 4, 33, 16),
            (4, 4, 8, 9),
            (8, 4, 33, 40),
            (8, 2, 16, 7),
            (8, 1, 5, 200),
            (8, 4, 4, 256),
            (16, 4, 3, 300),
            (16, 2, 3, 300),
            (16, 1, 2, 7),
            (16, 4, 1, 65_536),
        ] {
            // The last has fewer codes than are asked for.
            for (n, r) in [(1100, 3), (1100, 40), (50, 700)] {
                let kinds = if n > 1000 { 9 } else { 1000 };
                let tables: Vec<f32> = (0..3 * m * k).map(|_| numbers.below(kinds) as f32 / 3.0).collect();
                let of_codes: Vec<u32> = (0..n * m).map(|_| numbers.below(k) as u32).collect();
                for in_shared in [false, true] {
                    if in_shared && 16 * m * k > 32 << 10 || !in_shared && tile < 4 {
                        continue;
                    }
                    // Later launches may have lower ids.
                    let starts = [u32::MAX - n as u32, 7];
                    let alone = Alone { bits, tile, m, k, n, r, starts, in_shared };
                    let mut got = alone.keys(&tables, &of_codes);
                    got.chunks_mut(r).for_each(<[u64]>::sort_unstable);
                    let expected = alone.expected(&tables, &of_codes);
                    assert!(got == expected, "{bits} bits, tiles of {tile}, {m} x {k}, {r} of {n}, {in_shared}");
                }
            }
        }
    });
}
