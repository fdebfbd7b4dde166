//! The cases of tests/golden/exact.txt, which tests/golden/make_exact.py computes with rational numbers.

use super::matrix;
use codeword::Matrix;

pub struct Golden {
    pub name: String,
    pub x: Matrix<f32>,
    pub codewords: Matrix<f32>,
    /// Per row of `x`: the min(k, 3) nearest codewords with their squared distances.
    pub nearest: Vec<Vec<(u32, f32)>>,
}

pub fn load() -> Vec<Golden> {
    let text = include_str!("../golden/exact.txt");
    let mut cases = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["case", name, n, k, d] = words[..] else { panic!("expected a case line, got {line:?}") };
        let [n, k, d] = [n, k, d].map(|word| word.parse::<usize>().expect("a size"));
        let mut rows = |count: usize, letter: &str| -> Vec<Vec<String>> {
            (0..count)
                .map(|_| {
                    let mut words = lines.next().expect("another line").split(' ');
                    assert_eq!(words.next(), Some(letter), "case {name}");
                    words.map(String::from).collect()
                })
                .collect()
        };
        let numbers = |rows: Vec<Vec<String>>| rows.concat().iter().map(|word| number(word)).collect();
        let x = matrix(numbers(rows(n, "x")), n, d);
        let codewords = matrix(numbers(rows(k, "e")), k, d);
        let nearest = rows(n, "near").iter().map(|row| row.iter().map(|word| pair(word)).collect()).collect();
        cases.push(Golden { name: name.into(), x, codewords, nearest });
    }
    cases
}

fn number(word: &str) -> f32 {
    f32::from_bits(u32::from_str_radix(word, 16).expect("hexadecimal bits"))
}

fn pair(word: &str) -> (u32, f32) {
    let (label, bits) = word.split_once(':').expect("LABEL:BITS");
    (label.parse().expect("a label"), number(bits))
}
