//! k-means on a CUDA device learns the bytes that it learns on the CPU, and so does a codebook that follows its batches. Every test runs in a child process on the
//! simulated driver, which executes the real kernels and reports what they do wrong.
#![cfg(all(feature = "cuda", target_os = "linux"))]

mod common;
#[path = "common/simulated/mod.rs"]
mod simulated;

use codeword::{Codebook, Device, Ema, Error, Init, KMeans, KMeansFit, vector_gradient};
use common::{Numbers, matrix};
use simulated::Machine;

/// Everything about a fit but the tiers, which devices may differ in.
fn learned(fit: &KMeansFit) -> (Vec<u32>, Vec<u32>, Vec<u32>, Vec<u64>, bool, usize) {
    let codewords = fit.codebook.codewords().unwrap();
    let codewords = (0..fit.codebook.k()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
    let distances = fit.assignment.sq_distances.iter().map(|value| value.to_bits()).collect();
    let curve = fit.curve.iter().map(|value| value.to_bits()).collect();
    (codewords, fit.assignment.labels.clone(), distances, curve, fit.converged, fit.run)
}

#[test]
fn a_device_learns_the_bytes_of_the_cpu() {
    Machine::new().pass("a_device_learns_the_bytes_of_the_cpu", || {
        let mut numbers = Numbers::new(81);
        for (n, k, d) in [(300, 7, 24), (150, 40, 3), (90, 90, 5)] {
            let mut values = numbers.gaussians((n - 20) * d);
            // Ties and copies.
            values.extend_from_within(..20 * d);
            let x = matrix(values, n, d);
            let weights: Vec<f32> = (0..n).map(|_| 0.25 + numbers.uniform()).collect();
            let starts = [(Init::RandomRows, None), (Init::PlusPlus, Some(&weights[..])), (Init::Hierarchical, None)];
            for (init, weights) in starts {
                let params = KMeans::new(k).init(init).iterations(3).n_init(2).seed(7);
                let on = |device: &Device| params.fit_with(x.view(), weights, device, |_| Ok::<(), Error>(())).unwrap();
                let (device, cpu) = (Device::cuda(0).unwrap(), Device::cpu());
                let (got, expected) = (on(&device), on(&cpu));
                assert!(learned(&got) == learned(&expected), "{n} x {d}, k={k}");
                assert_eq!((got.codebook.device(), expected.codebook.device()), (&device, &cpu));
                // A codebook of the device as the start.
                let more = params.clone().n_init(1).init(Init::Given(got.codebook));
                let more = |device| learned(&more.fit(x.view(), device).unwrap());
                assert!(more(&device) == more(&cpu), "{n} x {d}, k={k}: from a codebook on the device");
                let limited = learned(&on(&device.with_max_memory(64 * 1024)));
                assert!(limited == learned(&expected), "{n} x {d}, k={k}: with little memory");
            }
        }
    });
}

#[test]
fn a_codebook_of_a_device_follows_its_batches_to_the_bytes_of_the_cpu() {
    Machine::new().pass("a_codebook_of_a_device_follows_its_batches_to_the_bytes_of_the_cpu", || {
        let mut numbers = Numbers::new(82);
        let (n, k, d) = (120, 15, 6);
        let start = matrix(numbers.gaussians(k * d), k, d);
        let batches: Vec<_> = (0..3).map(|_| matrix(numbers.gaussians(n * d), n, d)).collect();
        for cosine in [false, true] {
            let followed = |device: Device| {
                let params = Ema::new().decay(0.6).threshold(6.0).cosine(cosine);
                let mut ema = params.start(&Codebook::new(start.view(), &device).unwrap()).unwrap();
                let mut told = Vec::new();
                for batch in &batches {
                    let step = ema.update(batch.view()).unwrap();
                    let labels = step.assignment.labels;
                    let gradient = vector_gradient(batch.view(), ema.codebook(), &labels, 0.25, None).unwrap();
                    told.push((labels, step.usage, gradient));
                }
                assert_eq!(ema.codebook().device(), &device);
                let codewords = ema.codebook().codewords().unwrap();
                let codewords: Vec<u32> = (0..k).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
                (told, codewords, ema.state().clone())
            };
            let (got, expected) = (followed(Device::cuda(0).unwrap()), followed(Device::cpu()));
            assert!(expected.0.iter().any(|(_, usage, _)| usage.revived > 0));
            assert!(got == expected, "cosine {cosine}");
        }
    });
}
