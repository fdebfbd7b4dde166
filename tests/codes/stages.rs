//! Stages with projections and cosines: the codes of the published algorithms of codecs, the bits that are documented, and
//! what does not fit refused.

use crate::common::{self, Numbers, assert_same_bits, matrix, rows, scaled};
use codeword::backend::reference;
use codeword::{Device, Element, Error, Isa, Matrix, MatrixView, ResidualQuantizer, Stages, bf16, f16, normalize};

/// A weight and perhaps a bias.
type Projection = Option<(Matrix<f32>, Option<Vec<f32>>)>;

/// What a run of stages is made of.
struct Run {
    m: usize,
    codewords: Matrix<f32>,
    cosine: bool,
    on_vectors: bool,
    into: Projection,
    out: Projection,
}

impl Run {
    fn stages(&self) -> Stages {
        let mut stages = Stages::new(self.codewords.view(), self.m, &Device::cpu()).unwrap();
        if self.cosine {
            stages = stages.cosine().unwrap();
        }
        if let Some((weight, bias)) = &self.into {
            stages = stages.project_in(weight.view(), bias.as_deref()).unwrap();
        }
        if let Some((weight, bias)) = &self.out {
            stages = stages.project_out(weight.view(), bias.as_deref()).unwrap();
        }
        if self.on_vectors { stages.on_vectors() } else { stages }
    }
}

fn quantizer(runs: &[Run]) -> ResidualQuantizer {
    ResidualQuantizer::from_stages(runs.iter().map(Run::stages).collect()).unwrap()
}

#[test]
fn codes_and_reconstructions_are_those_of_encodec_dac_and_mimi() {
    let mut lines = include_str!("../golden/stages.txt").lines();
    let mut names = Vec::new();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["case", name, n, d, k, runs] = words[..] else { panic!("{line}") };
        let [n, d, k, runs] = [n, d, k, runs].map(|word| word.parse::<usize>().unwrap());
        let mut words = |letter: &str, rows: usize| -> Vec<&str> {
            let of_row = |_| lines.next().and_then(|line| line.strip_prefix(letter)).expect(letter).split_whitespace();
            (0..rows).flat_map(of_row).collect()
        };
        let runs: Vec<Run> = (0..runs)
            .map(|_| {
                let about: Vec<usize> = words("stages", 1).iter().map(|word| word.parse().unwrap()).collect();
                let [m, w, cosine, on_vectors, has_in, has_out] = about[..] else { panic!("{about:?}") };
                let into = projection(has_in, w, d, |name, rows| floats(words(&format!("in{name}"), rows)));
                let codewords = matrix(floats(words("e", m * k)), m * k, w);
                let out = projection(has_out, d, w, |name, rows| floats(words(&format!("out{name}"), rows)));
                Run { m, codewords, cosine: cosine == 1, on_vectors: on_vectors == 1, into, out }
            })
            .collect();
        let (quantizer, x) = (quantizer(&runs), matrix(floats(words("x", n)), n, d));
        assert_eq!((quantizer.k(), quantizer.d()), (k, d));
        let expected: Vec<u32> = words("codes", n).iter().map(|word| word.parse().unwrap()).collect();
        let codes = quantizer.encode(x.view()).unwrap();
        assert_eq!(quantizer.unpack(&codes).unwrap(), expected, "{name}");
        for s in 1..=quantizer.m() {
            let (got, expected) = (quantizer.decode_stages(&codes, s).unwrap(), floats(words("y", n)));
            for (got, expected) in got.as_slice().iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{name}: {got}, expected {expected}");
            }
        }
        names.push(name);
    }
    assert_eq!(names, ["encodec", "dac", "mimi"]);
}

fn floats(words: Vec<&str>) -> Vec<f32> {
    words.into_iter().map(|word| f32::from_bits(u32::from_str_radix(word, 16).expect("hexadecimal digits"))).collect()
}

/// Read where there is one: the weight, and the bias where its line is not empty.
fn projection(has: usize, to: usize, from: usize, mut read: impl FnMut(&str, usize) -> Vec<f32>) -> Projection {
    let weight = (has == 1).then(|| matrix(read("", to), to, from))?;
    let bias = read("_bias", 1);
    Some((weight, Some(bias).filter(|bias| !bias.is_empty())))
}

/// A random projection, its bias where asked for.
fn random_projection(numbers: &mut Numbers, to: usize, from: usize, biased: bool) -> Projection {
    let weight = numbers.gaussians(to * from).into_iter().map(|value| value / (from as f32).sqrt()).collect();
    Some((matrix(weight, to, from), biased.then(|| numbers.gaussians(to))))
}

/// Random runs: of DAC, of Mimi, cosines alone, projections one way, several stages by cosine.
fn random(numbers: &mut Numbers, kind: usize, k: usize, d: usize, w: usize) -> Vec<Run> {
    let plan: &[(usize, bool, bool, bool, bool)] = match kind {
        0 => &[(1, true, false, true, true), (1, true, false, true, true), (1, true, false, true, true)],
        1 => &[(1, false, true, true, false), (3, false, true, true, false)],
        2 => &[(1, true, false, false, false), (2, true, false, false, false), (1, false, false, false, false)],
        _ => &[(2, true, false, true, true), (1, false, true, false, false), (2, false, false, true, true)],
    };
    let of = |&(m, cosine, on_vectors, projected, biased): &(usize, bool, bool, bool, bool)| {
        let width = if projected { w } else { d };
        let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
        let into = if projected { random_projection(numbers, w, d, biased) } else { None };
        let out = if projected { random_projection(numbers, d, w, biased) } else { None };
        Run { m, codewords, cosine, on_vectors, into, out }
    };
    plan.iter().map(of).collect()
}

/// The documented bits: exact products added in f64 from the first on, the bias last, rounded once.
fn project(projection: &Projection, x: Vec<f32>) -> Vec<f32> {
    let Some((weight, bias)) = projection else { return x };
    let of_row = |x: &[f32]| -> Vec<f32> {
        let component = |j: usize| {
            let pairs = weight.view().row(j).iter().zip(x);
            let sum = pairs.fold(0.0, |sum, (&w, &x)| sum + f64::from(w) * f64::from(x));
            (sum + bias.as_ref().map_or(0.0, |bias| f64::from(bias[j]))) as f32
        };
        (0..weight.rows()).map(component).collect()
    };
    x.chunks(weight.cols()).flat_map(of_row).collect()
}

fn minus(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
}

/// Numbers, `[n, m]`; what each stage quantizes; and the sum of what the first stages stand for, `[n, d]` each.
type ByHand = (Vec<u32>, Vec<Vec<f32>>, Vec<f32>);

fn by_hand(runs: &[Run], x: &Matrix<f32>) -> ByHand {
    let (n, d, m) = (x.rows(), x.cols(), runs.iter().map(|run| run.m).sum::<usize>());
    let (mut left, mut sum) = (x.as_slice().to_vec(), vec![0.0; n * d]);
    let (mut codes, mut seen) = (vec![0; n * m], Vec::new());
    let mut at = 0;
    for (i, run) in runs.iter().enumerate() {
        let (k, w) = (run.codewords.rows() / run.m, run.codewords.cols());
        let mut inner = project(&run.into, if run.on_vectors { x.as_slice().to_vec() } else { left.clone() });
        let mut of_run = vec![0.0; n * w];
        for s in 0..run.m {
            let stage = rows(&run.codewords, s * k..(s + 1) * k);
            let view = MatrixView::new(&inner, n, w).unwrap();
            let labels = match run.cosine {
                true => reference::nearest(normalize(view).unwrap().view(), normalize(stage).unwrap().view()).0,
                false => reference::nearest(view, stage).0,
            };
            seen.push(inner.clone());
            for (i, &label) in labels.iter().enumerate() {
                codes[i * m + at] = label;
                let codeword = stage.row(label as usize);
                minus(&mut inner[i * w..][..w], codeword);
                let of_run = of_run[i * w..][..w].iter_mut().zip(codeword);
                of_run.for_each(|(sum, value)| *sum = if s == 0 { *value } else { *sum + value });
            }
            at += 1;
        }
        let part = project(&run.out, of_run);
        minus(&mut left, &part);
        sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum = if i == 0 { *part } else { *sum + part });
    }
    (codes, seen, sum)
}

#[test]
fn codes_sums_and_what_each_stage_quantizes_are_those_of_a_hand() {
    let mut numbers = Numbers::new(91);
    for kind in 0..4 {
        for (k, d, w, n) in [(16, 7, 3, 120), (5, 2, 9, 40), (300, 33, 8, 90), (1, 3, 1, 6)] {
            let runs = random(&mut numbers, kind, k, d, w);
            let (quantizer, x) = (quantizer(&runs), matrix(numbers.gaussians(n * d), n, d));
            let (expected, seen, sums) = by_hand(&runs, &x);
            let codes = quantizer.encode(x.view()).unwrap();
            assert_eq!(quantizer.unpack(&codes).unwrap(), expected, "kind {kind}, {k} x {d}, {w}");
            assert_same_bits("sums", quantizer.decode(&codes).unwrap().as_slice(), &sums);
            let (mut s, m) = (0, quantizer.m());
            let told = quantizer.each_stage(x.view(), &codes, |at, left, labels| {
                assert_same_bits(
                    "what a stage quantizes",
                    &(0..n).flat_map(|i| left.row(i).to_vec()).collect::<Vec<_>>(),
                    &seen[s],
                );
                assert!(at == s && labels.iter().enumerate().all(|(i, &label)| label == expected[i * m + s]));
                s += 1;
                Ok::<(), Error>(())
            });
            told.unwrap();
            assert_eq!(s, m);
        }
    }
}

#[test]
fn projections_that_change_nothing_change_no_byte() {
    let mut numbers = Numbers::new(92);
    let (m, k, d, n) = (3, 20, 6, 300);
    let (codewords, x) = (matrix(numbers.gaussians(m * k * d), m * k, d), matrix(numbers.gaussians(n * d), n, d));
    let plain = ResidualQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
    let codes = plain.encode(x.view()).unwrap();
    let unit = matrix((0..d * d).map(|at| if at % (d + 1) == 0 { 1.0 } else { 0.0 }).collect(), d, d);
    let same = || Some((unit.clone(), None));
    let run = |s: usize, m: usize, into: Projection, out: Projection| {
        let codewords = matrix(codewords.as_slice()[s * k * d..(s + m) * k * d].to_vec(), m * k, d);
        Run { m, codewords, cosine: false, on_vectors: false, into, out }
    };
    let each: Vec<Run> = (0..m).map(|s| run(s, 1, same(), same())).collect();
    for runs in [each, vec![run(0, m, None, None)], vec![run(0, m, same(), None)], vec![run(0, m, None, same())]] {
        let quantizer = quantizer(&runs);
        assert_eq!(quantizer.encode(x.view()).unwrap(), codes);
        for s in 1..=m {
            let (got, expected) =
                (quantizer.decode_stages(&codes, s).unwrap(), plain.decode_stages(&codes, s).unwrap());
            assert_same_bits("decoded", got.as_slice(), expected.as_slice());
        }
    }
    // With nothing around the codebooks a beam is what it was.
    let again = quantizer(&[run(0, m, None, None)]);
    assert_eq!(again.encode_beam(x.view(), 4).unwrap(), plain.encode_beam(x.view(), 4).unwrap());
}

#[test]
fn batches_threads_gaps_between_rows_and_elements_of_16_bits_change_no_byte_of_any_kind() {
    let mut numbers = Numbers::new(93);
    let (k, d, w) = (20, 6, 3);
    // More rows than are worked on at a time.
    let n = scaled(20_000);
    for kind in 0..4 {
        let quantizer = quantizer(&random(&mut numbers, kind, k, d, w));
        let values = numbers.gaussians(n * 7);
        check_elements(&quantizer, &values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<_>>(), n);
        check_elements(&quantizer, &values.iter().map(|&value| f16::from_f32(value)).collect::<Vec<_>>(), n);
    }
}

/// Of 7 columns all but the first are vectors.
fn check_elements<T: Element>(quantizer: &ResidualQuantizer, values: &[T], n: usize) {
    let x = MatrixView::new(values, n, 7).unwrap().columns(1..7).unwrap();
    let wide = matrix((0..n).flat_map(|i| x.row(i).iter().map(|v| v.to_f32())).collect(), n, 6);
    let codes = quantizer.encode(wide.view()).unwrap();
    let decoded = quantizer.decode(&codes).unwrap();
    assert_eq!(quantizer.encode(x).unwrap(), codes);
    let parts: Vec<u8> =
        (0..n).step_by(997).flat_map(|i| quantizer.encode(rows(&wide, i..n.min(i + 997))).unwrap()).collect();
    assert_eq!(parts, codes);
    for threads in [1, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            assert_eq!(quantizer.encode(x).unwrap(), codes, "{threads} threads");
            assert_same_bits("decoded", quantizer.decode(&codes).unwrap().as_slice(), decoded.as_slice());
        });
    }
}

/// Codes and decoded bits of every kind.
fn all_kinds() -> Vec<u64> {
    let mut numbers = Numbers::new(95);
    let of_kind = |kind: usize| {
        let (k, d, w) = [(20, 6, 3), (300, 33, 8), (7, 19, 21), (64, 9, 4)][kind];
        let (n, quantizer) = (scaled(400), quantizer(&random(&mut numbers, kind, k, d, w)));
        let codes = quantizer.encode(matrix(numbers.gaussians(n * d), n, d).view()).unwrap();
        let decoded = quantizer.decode(&codes).unwrap();
        let bits = decoded.as_slice().iter().map(|value| u64::from(value.to_bits()));
        let values = codes.iter().map(|&byte| u64::from(byte)).chain(bits);
        values.fold(0xcbf2_9ce4_8422_2325, |hash: u64, value| (hash ^ value).wrapping_mul(0x100_0000_01b3))
    };
    (0..4).map(of_kind).collect()
}

const ENCODE: &str = "stages::as_child_encode";

#[test]
fn every_instruction_set_makes_the_same_bytes() {
    let expected = format!("made {:x?}", all_kinds());
    for isa in Isa::available().into_iter().map(Isa::name) {
        let output = common::child(ENCODE, isa);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&expected), "{isa}: {expected}, got {text}");
    }
}

#[test]
fn as_child_encode() {
    if common::is_child(ENCODE) {
        println!("made {:x?}", all_kinds());
    }
}

#[test]
fn a_vector_without_direction_gets_the_first_codeword() {
    // Directions of different lengths once they are rounded, the first of them not the shortest.
    let codewords = matrix(vec![1.0, 1.0, 1.0, 2.0, 3.0, 1.0, -5.0, 0.0], 4, 2);
    let stages = Stages::new(codewords.view(), 1, &Device::cpu()).unwrap().cosine().unwrap();
    let quantizer = ResidualQuantizer::from_stages(vec![stages]).unwrap();
    // And one beside it so short that its squares vanish in f32.
    let x = matrix(vec![0.0, -0.0, -1e-30, 1e-33, 1e30, 1.9e30], 3, 2);
    let codes = quantizer.encode(x.view()).unwrap();
    assert_eq!(quantizer.unpack(&codes).unwrap(), [0, 3, 1]);
    // Codewords keep their lengths.
    assert_eq!(quantizer.decode(&codes).unwrap().as_slice(), [1.0, 1.0, -5.0, 0.0, 1.0, 2.0]);
}

#[test]
fn a_search_goes_by_the_decoded_vectors_of_any_stages() {
    let mut numbers = Numbers::new(94);
    let (n, d) = (500, 5);
    for kind in 0..4 {
        let quantizer = quantizer(&random(&mut numbers, kind, 9, d, 3));
        let (x, queries) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(6 * d), 6, d));
        let codes = quantizer.encode(x.view()).unwrap();
        let decoded = quantizer.decode(&codes).unwrap();
        let got = quantizer.search(&codes, queries.view(), 7).unwrap();
        let (ids, sq_distances) = reference::top_k(queries.view(), decoded.view(), 7);
        assert_eq!(got.ids, ids);
        assert_same_bits("distances", &got.sq_distances, &sq_distances);
    }
}

#[test]
fn stages_that_do_not_fit_are_refused_with_what_would() {
    let cpu = Device::cpu();
    let text = |error: Error| error.to_string();
    let stages = |k: usize, w: usize| Stages::new(matrix(vec![1.0; k * w], k, w).view(), 1, &cpu).unwrap();
    let weight = |rows: usize, cols: usize| matrix(vec![0.5; rows * cols], rows, cols);
    let refused = |stages: codeword::Result<Stages>| text(stages.err().unwrap());
    let of = |stages: Vec<Stages>| text(ResidualQuantizer::from_stages(stages).err().unwrap());

    assert_eq!(
        refused(stages(4, 2).project_in(weight(3, 5).view(), None)),
        "Stages::project_in: expected a weight of 2 rows, as codewords have dimensions, got 3 x 5"
    );
    assert_eq!(
        refused(stages(4, 2).project_out(weight(5, 3).view(), None)),
        "Stages::project_out: expected a weight of 2 columns, as codewords have dimensions, got 5 x 3"
    );
    assert!(refused(stages(4, 2).project_in(weight(2, 0).view(), None)).contains("at least one row and one column"));
    assert_eq!(
        refused(stages(4, 2).project_in(weight(2, 5).view(), Some(&[0.0]))),
        "Stages::project_in: expected 2 values of the bias, as the weight has rows, got 1"
    );
    let bad = matrix(vec![0.0, 1.0, f32::NAN, 0.0], 2, 2);
    let error = refused(stages(4, 2).project_out(bad.view(), None));
    assert!(error.contains("row of the weight 1 holds NaN in column 0; "), "{error}");
    let error = refused(stages(4, 2).project_out(weight(2, 2).view(), Some(&[0.0, f32::INFINITY])));
    assert!(error.contains("bias must be finite; export the model again, got inf as value 1"), "{error}");
    let zeros = matrix(vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0], 4, 2);
    let error = refused(Stages::new(zeros.view(), 2, &cpu).unwrap().cosine());
    assert!(error.contains("got zeros in row 2") && error.contains("write a copy"), "{error}");
    assert!(refused(Stages::new(zeros.view(), 3, &cpu)).contains("m must be a divisor of the 4 codewords, got 3"));

    assert_eq!(of(vec![]), "ResidualQuantizer::from_stages: stages must be at least one stage, got none");
    assert!(
        of(vec![stages(4, 2), stages(5, 2)])
            .contains("expected 4 codewords in every stage, as in stage 0, got 5 in stage 1")
    );
    assert!(of(vec![stages(4, 2), stages(4, 3)]).contains("2 dimensions to as many"));
    let one_way = stages(4, 2).project_in(weight(2, 5).view(), None).unwrap();
    let error = of(vec![one_way.clone()]);
    assert!(error.contains("from vectors of 5 dimensions") && error.contains("got from 5 to 2 in stage 0"), "{error}");

    let both = one_way.project_out(weight(5, 2).view(), None).unwrap();
    let quantizer = ResidualQuantizer::from_stages(vec![both.clone(), both]).unwrap();
    let x = |values: Vec<f32>| matrix(values, 2, 5);
    assert!(text(quantizer.encode(weight(2, 2).view()).unwrap_err()).contains("expected vectors of 5 columns, got 2"));
    assert_eq!(
        text(quantizer.encode_beam(x(vec![0.0; 10]).view(), 2).unwrap_err()),
        "ResidualQuantizer::encode_beam: stages must be without projections and cosines, none on the vectors, each alone or \
         all together; encode takes any, got others"
    );
    let mut values = vec![1.0; 10];
    values[8] = f32::NEG_INFINITY;
    let error = text(quantizer.encode(x(values.clone()).view()).unwrap_err());
    assert!(error.contains("vector 1 holds -inf in column 3; remove the vector"), "{error}");
    values[5..].fill(3e38);
    let error = text(quantizer.encode(x(values.clone()).view()).unwrap_err());
    assert!(error.contains("projected vector 1 holds inf in column 0; scale"), "{error}");
    // Decoded sums beyond f32 are what they are, and nothing panics.
    values.fill(0.0);
    let codes = quantizer.encode(x(values.clone()).view()).unwrap();
    let none = |_: usize, _: MatrixView<'_, f32>, _: &[u32]| Ok::<(), Error>(());
    let error = text(quantizer.each_stage(x(values).view(), &codes[1..], none).unwrap_err());
    assert!(error.contains("a code for each of 2 vectors, got 1"), "{error}");
    assert_eq!(quantizer.encode(matrix::<f32>(vec![], 0, 5).view()).unwrap(), [0u8; 0]);
    assert_eq!(quantizer.decode(&[]).unwrap().rows(), 0);
}

#[test]
fn residuals_behind_projections_are_named_by_their_rows() {
    // The way out makes large ones of small ones: what is left of row 1 leaves f32 in the second stage.
    let stage = || {
        let stages = Stages::new(matrix(vec![0.0, 1.0], 2, 1).view(), 1, &Device::cpu()).unwrap();
        let stages = stages.project_in(matrix(vec![1e-38], 1, 1).view(), None).unwrap();
        stages.project_out(matrix(vec![3e38], 1, 1).view(), Some(&[3e38])).unwrap()
    };
    let quantizer = ResidualQuantizer::from_stages(vec![stage(), stage()]).unwrap();
    let error = quantizer.encode(matrix(vec![0.0, 3e38, -3e38], 3, 1).view()).unwrap_err().to_string();
    assert!(error.contains("residual 1 holds -inf in column 0; scale"), "{error}");
    // A sum beyond f32 is no panic, and no vector to search among.
    let codes = quantizer.pack(&[0, 0, 1, 1]).unwrap();
    assert!(quantizer.decode(&codes).unwrap().as_slice()[1].is_infinite());
    let error = quantizer.search(&codes, matrix(vec![0.0], 1, 1).view(), 1).unwrap_err().to_string();
    assert!(error.contains("holds inf in column 0"), "{error}");
}
