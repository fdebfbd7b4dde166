//! `codeword doctor`: what this machine offers, what is missing, and what is used instead.

use crate::cli::args::Global;
use crate::cli::devices::Devices;
use crate::cli::exit::Result;
use crate::cli::report::{print_json, print_table, size_text};
use codeword::backend::cuda::cublas;
use codeword::backend::cuda::probe::{Missing, Probe};
use codeword::{Device, Isa};
use serde_json::{Value, json};

/// Version of the nvcc that the build script found.
const NVCC: Option<&str> = option_env!("CODEWORD_NVCC");

pub fn run(global: &Global) -> Result<()> {
    let probe = Probe::run();
    let used = global.device.open();
    let named = used.as_ref().map(Devices::to_string).unwrap_or_else(|_| "none".into());
    // Opened one after the other: only that shows whether the driver takes the kernels.
    let refusals: Vec<Option<String>> =
        probe.devices.iter().map(|it| Some(Device::cuda(it.ordinal).err()?.to_string())).collect();
    if global.json {
        print_json(&json(&probe, &refusals, &named))?
    } else {
        print_table(&table(&probe, &refusals, &named))?
    }
    // A device that was demanded and cannot be had is an error here too, after the report that says why.
    used.map(|_| ())
}

fn json(probe: &Probe, refusals: &[Option<String>], used: &str) -> Value {
    let step = |name: &str, outcome: &std::result::Result<String, Missing>| match outcome {
        Ok(found) => json!({"step": name, "ok": true, "found": found}),
        Err(missing) => json!({"step": name, "ok": false, "found": missing.got, "way_out": missing.way_out}),
    };
    json!({
        "verb": "doctor",
        "version": env!("CARGO_PKG_VERSION"),
        "target": {"arch": std::env::consts::ARCH, "os": std::env::consts::OS},
        "device": used,
        "isa": {
            "used": Isa::selected().ok().map(Isa::name),
            "available": Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>(),
            "error": Isa::selected().err().map(|error| error.to_string()),
        },
        "cores": std::thread::available_parallelism().ok().map(std::num::NonZero::get),
        "threads": rayon::current_num_threads(),
        "cuda": {
            "nvcc_at_build_time": NVCC,
            "steps": probe.steps.iter().map(|it| step(it.name, &it.outcome)).collect::<Vec<_>>(),
            "cublas": step("cublas", cublas::library()),
            "devices": probe.devices.iter().zip(refusals).map(|(it, refusal)| json!({
                "ordinal": it.ordinal,
                "name": it.name,
                "compute_capability": format!("{}.{}", it.capability.0, it.capability.1),
                "memory": it.memory,
                "usable": refusal.is_none(),
                "why_not": refusal,
            })).collect::<Vec<_>>(),
        },
    })
}

fn table(probe: &Probe, refusals: &[Option<String>], used: &str) -> Vec<[String; 3]> {
    let row = |label: &str, value: &str, remark: String| [label.into(), value.into(), remark];
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let mut rows = vec![row("codeword", env!("CARGO_PKG_VERSION"), system)];

    let selected = Isa::selected();
    for &isa in Isa::ALL {
        let (value, remark) = match &selected {
            Ok(used) if *used == isa => ("used", "the environment variable CODEWORD_ISA forces another".to_string()),
            _ if isa.is_available() => ("available", String::new()),
            _ => ("-", "this processor lacks it".into()),
        };
        rows.push(row(&format!("instructions {}", isa.name()), value, remark));
    }
    if let Err(error) = selected {
        rows.push(row("instructions", "wrong", error.to_string()));
    }
    let cores = std::thread::available_parallelism().map_or("unknown".into(), |cores| cores.to_string());
    rows.push(row(
        "threads",
        &rayon::current_num_threads().to_string(),
        format!("cores: {cores}; --threads sets another number"),
    ));
    rows.extend(caches().into_iter().map(|(name, size)| row(&name, &size, String::new())));
    if let Some((total, available)) = memory() {
        rows.push(row("memory", &size_text(total), format!("{} available", size_text(available))));
    }

    rows.push(match NVCC {
        Some(nvcc) => row("cuda nvcc", nvcc, "compiled the kernels when this program was built".into()),
        None => row("cuda nvcc", "-", "none when this program was built; the shipped PTX serves".into()),
    });
    for step in &probe.steps {
        let label = format!("cuda {}", step.name);
        match &step.outcome {
            Ok(found) => rows.push(row(&label, "ok", found.clone())),
            Err(missing) => {
                rows.push(row(&label, "missing", missing.got.clone()));
                rows.push(row("", "way out", missing.way_out.clone()));
            }
        }
        if step.name == "count" {
            for (it, refusal) in probe.devices.iter().zip(refusals) {
                let (major, minor) = it.capability;
                let remark = format!("{}, compute capability {major}.{minor}, {}", it.name, size_text(it.memory));
                let state = if refusal.is_none() { "usable" } else { "refused" };
                rows.push(row(&format!("cuda:{}", it.ordinal), state, remark));
                rows.extend(refusal.iter().map(|why| row("", "why", why.clone())));
            }
        }
    }
    match cublas::library() {
        Ok(found) => rows.push(row("cuda cublas", "ok", found.clone())),
        Err(missing) => {
            // Optional: no way out is needed, only how to get it.
            rows.push(row("cuda cublas", "-", missing.got.clone()));
            rows.push(row("", "optional", missing.way_out.clone()));
        }
    }
    rows.push(row("device", used, "what --device names, or auto chooses".into()));
    rows
}

/// The caches of the first core, where Linux tells them.
fn caches() -> Vec<(String, String)> {
    let read = |index: usize, what: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}");
        std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
    };
    let cache = |index| {
        let kind = read(index, "type")?;
        let letter = kind.get(..1).filter(|_| kind != "Unified").unwrap_or("").to_lowercase();
        let size = read(index, "size")?;
        let size = size
            .strip_suffix('K')
            .and_then(|kib| kib.parse::<u64>().ok())
            .map_or(size.clone(), |kib| size_text(kib << 10));
        Some((format!("cache L{}{letter}", read(index, "level")?), size))
    };
    (0..8).map_while(cache).collect()
}

/// Total and available bytes, where Linux tells them.
fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}
