//! The command line tool reads the formats of vector search benchmarks wherever it reads an array, and does with them
//! what it does with the same array as `.npy`.

use crate::support::{Folder, noise, stderr};

/// Rows of `d` f32, each after its dimension.
fn fvecs(d: usize, values: &[f32]) -> Vec<u8> {
    let row = |row: &[f32]| {
        [&(d as i32).to_le_bytes()[..], &row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()].concat()
    };
    values.chunks(d).flat_map(row).collect()
}

fn fbin(d: usize, values: &[f32]) -> Vec<u8> {
    let head = [values.len() / d, d].map(|len| (len as u32).to_le_bytes());
    [head.as_flattened(), &values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()].concat()
}

/// 500 vectors of 6 dimensions and 10 codewords, each as `.npy`, `.fvecs` and `.fbin`.
fn folder() -> Folder {
    let folder = Folder::new();
    for (name, n) in [("x", 500), ("e", 10)] {
        let values = noise(6 * n, n as u32);
        folder.f32(&format!("{name}.npy"), &[n, 6], &values);
        folder.write(&format!("{name}.fvecs"), &fvecs(6, &values));
        folder.write(&format!("{name}.fbin"), &fbin(6, &values));
    }
    folder
}

const FORMATS: [&str; 3] = ["npy", "fvecs", "fbin"];

#[test]
fn every_verb_does_with_them_what_it_does_with_npy() {
    let folder = folder();
    for format in FORMATS {
        let (x, e, out) = (&format!("x.{format}"), &format!("e.{format}"), |name: &str| format!("{format}-{name}"));
        folder.ok(&["encode", x, "-c", e, "-o", &out("c"), "--distances", &out("d"), "--reconstruction", &out("r")]);
        folder.ok(&["distances", x, "-c", e, "-o", &out("all")]);
        folder.ok(&["train", x, "-k", "8", "-o", &out("model"), "--seed", "3"]);
        folder.ok(&["train", x, "-k", "10", "-o", &out("started"), "--start", e]);
        let eval = folder.json(&["eval", x, "-c", e]);
        for name in ["c", "d", "r", "all", "model", "started"] {
            assert!(folder.read(&out(name)) == folder.read(&format!("npy-{name}")), "{name} of {format}");
        }
        let npy = folder.json(&["eval", "x.npy", "-c", "e.npy"]);
        for key in ["n", "d", "k", "inertia", "perplexity", "dead"] {
            assert!(eval[key] == npy[key] && eval[key].is_number(), "{key} of {format}: {eval}");
        }
    }
}

#[test]
fn codes_are_decoded_from_them() {
    let folder = folder();
    let codes = [3u8, 0, 9, 9, 1, 2];
    let rows = |head: &[u8]| codes.chunks(3).flat_map(|row| [head, row].concat()).collect::<Vec<_>>();
    folder.array("c.npy", "|u1", &[2, 3], codes.to_vec());
    folder.write("c.bvecs", &rows(&[3, 0, 0, 0]));
    folder.write("c.u8bin", &[&[2, 0, 0, 0, 3, 0, 0, 0], &codes[..]].concat());
    let wide: Vec<u8> = codes.iter().flat_map(|&code| i32::from(code).to_le_bytes()).collect();
    folder.write("c.ivecs", &wide.chunks(12).flat_map(|row| [&[3, 0, 0, 0], row].concat()).collect::<Vec<_>>());
    folder.write("c.ibin", &[&[2, 0, 0, 0, 3, 0, 0, 0], &wide[..]].concat());
    folder.ok(&["decode", "c.npy", "-c", "e.npy", "-o", "npy"]);
    for format in ["bvecs", "u8bin", "ivecs", "ibin"] {
        folder.ok(&["decode", &format!("c.{format}"), "-c", "e.fvecs", "-o", format]);
        assert_eq!(folder.read(format), folder.read("npy"), "{format}");
    }
}

#[test]
fn inspect_says_what_they_hold() {
    let folder = folder();
    let npy = folder.json(&["inspect", "x.npy"]);
    for (format, data_start) in [("fvecs", 4), ("fbin", 8)] {
        let file = format!("x.{format}");
        let mut ours = folder.json(&["inspect", &file]);
        assert_eq!((&ours["file"], &ours["data_start"]), (&file.into(), &data_start.into()));
        (ours["file"], ours["data_start"]) = (npy["file"].clone(), npy["data_start"].clone());
        assert_eq!(ours, npy, "{format}");
    }
    assert!(folder.ok(&["inspect", "x.fvecs"]).contains("500 x 6"));
}

#[test]
fn what_is_wrong_with_them_is_said_in_one_line() {
    let folder = folder();
    let mut bytes = std::fs::read(folder.path("x.fvecs")).expect("the file");
    bytes[28 * 123] = 7;
    folder.write("row.fvecs", &bytes);
    folder.write("cut.fvecs", &bytes[..bytes.len() - 4]);
    folder.write("cut.fbin", &fbin(6, &[1.0; 12])[..50]);
    let before = folder.names();
    for (x, words) in [
        ("row.fvecs", ["the dimension 6 in front of every row", "7 in front of row 123"]),
        ("cut.fvecs", ["whole rows of 28 bytes", "13996 bytes (cut short?)"]),
        ("cut.fbin", ["56 bytes for shape [2, 6] of f32", "50 bytes (cut short?)"]),
    ] {
        let output = folder.run(&["encode", x, "-c", "e.npy", "-o", "new.npy"]);
        let text = stderr(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(3), 1), "{text}");
        assert!(text.contains(x) && words.iter().all(|word| text.contains(word)), "{text}");
        assert_eq!(folder.names(), before);
    }
    folder.write("long.fbin", &[fbin(6, &[1.0; 12]), vec![0; 5]].concat());
    let output = folder.run(&["encode", "long.fbin", "-c", "e.npy", "-o", "long.npy"]);
    assert!(output.status.success() && stderr(&output).contains("5 bytes after the array are ignored"));
}
