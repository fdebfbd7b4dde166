//! The devices that a verb works on, as `--device` names them.

use crate::cli::exit::{Exit, Failure, OrExit, Result};
use codeword::Device;
use codeword::backend::cuda::probe::Probe;
use std::str::FromStr;

/// What `--device` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    /// By number, each once.
    Cuda(Vec<usize>),
    AllCuda,
}

impl DeviceChoice {
    /// The devices themselves, at least one.
    pub fn open(&self) -> Result<Devices> {
        let cuda = |ordinal: usize| Device::cuda(ordinal).or_exit(Exit::NoDevice);
        let devices = match self {
            DeviceChoice::Auto => vec![Device::best()],
            DeviceChoice::Cpu => vec![Device::cpu()],
            DeviceChoice::Cuda(ordinals) => ordinals.iter().copied().map(cuda).collect::<Result<_>>()?,
            // Where there is none, the first one's error says why.
            DeviceChoice::AllCuda => (0..Probe::run().devices.len().max(1)).map(cuda).collect::<Result<_>>()?,
        };
        Ok(Devices(devices))
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Cpu),
            "cuda" => return Ok(DeviceChoice::Cuda(vec![0])),
            "cuda:all" => return Ok(DeviceChoice::AllCuda),
            _ => {}
        }
        let numbers = text.strip_prefix("cuda:").map(|list| list.split(',').map(str::parse).collect());
        let Some(Ok(ordinals)) = numbers else {
            return Err("expected auto, cpu, cuda, cuda:N with a device number N, cuda:N,M,... or cuda:all".into());
        };
        let ordinals: Vec<usize> = ordinals;
        match (1..ordinals.len()).find(|&i| ordinals[..i].contains(&ordinals[i])) {
            Some(i) => Err(format!("device {} is named twice", ordinals[i])),
            None => Ok(DeviceChoice::Cuda(ordinals)),
        }
    }
}

/// Open devices, at least one.
pub struct Devices(pub Vec<Device>);

impl Devices {
    /// How much faster than a processor they are, about: longer blocks keep them busy.
    pub fn pace(&self) -> u64 {
        self.0.iter().map(|device| if *device == Device::Cpu { 1 } else { 64 }).sum()
    }

    /// The only one.
    pub fn only(mut self, verb: &str) -> Result<Device> {
        match (self.0.pop(), self.0.is_empty()) {
            (Some(device), true) => Ok(device),
            _ => {
                let message =
                    format!("--device: {verb} works on one device; name one (encode with a codebook takes several)");
                Err(Failure::new(Exit::Usage, message))
            }
        }
    }
}

impl std::fmt::Display for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.0.iter().map(Device::to_string).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_name_and_number() {
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(vec![3])));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(vec![0])));
        assert_eq!("cuda:2,0".parse(), Ok(DeviceChoice::Cuda(vec![2, 0])));
        assert_eq!("cuda:all".parse(), Ok(DeviceChoice::AllCuda));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", "", "cuda:1,", "cuda:1,2,1", "cuda:0, 1"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_verb_for_one_device_refuses_two() {
        assert!(Devices(vec![Device::cpu()]).only("decode").is_ok());
        let Err(failure) = Devices(vec![Device::cpu(), Device::cpu()]).only("decode") else { panic!("two are one") };
        assert_eq!(
            failure.error.to_string(),
            "--device: decode works on one device; name one (encode with a codebook takes several)"
        );
    }
}
