//! `rcg info`: what of RDMA this machine has.

use std::fmt::Write;

use clap::Args;
use rdmacm_gluster::engine::{DeviceLimits, Engine, EngineConfig, Limits};
use serde::Serialize;

use crate::host::{Device, Host, Interface};
use crate::loopback;
use crate::output::{Format, octets};
use crate::side::{Provider, Stages, told};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    providers: Vec<ProviderInfo>,
    devices: Vec<DeviceInfo>,
    addresses: Vec<AddressInfo>,
}

#[derive(Serialize)]
struct ProviderInfo {
    name: &'static str,
    available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsInfo>,
}

#[derive(Serialize)]
struct LimitsInfo {
    max_send_depth: u32,
    max_recv_depth: u32,
    max_sge: u32,
    max_inline: u32,
    max_ird: u32,
    max_ord: u32,
    max_message: u64,
    max_private_data: u32,
    max_addresses: u32,
}

#[derive(Serialize)]
struct DeviceInfo {
    #[serde(flatten)]
    device: Device,
    /// What libibverbs says; none where it can't be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<DeviceLimitsInfo>,
}

#[derive(Serialize)]
struct DeviceLimitsInfo {
    max_work_requests: u32,
    max_sge: u32,
    max_completions: u32,
    max_ird: u32,
    max_ord: u32,
    max_message: u64,
}

#[derive(Serialize)]
struct AddressInfo {
    address: String,
    interface: String,
    /// The provider that a connection of this machine to the address was made by.
    provider: Option<&'static str>,
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stages: Option<Stages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<Limits> for LimitsInfo {
    fn from(limits: Limits) -> Self {
        Self {
            max_send_depth: limits.max_send_depth,
            max_recv_depth: limits.max_recv_depth,
            max_sge: limits.max_sge,
            max_inline: limits.max_inline,
            max_ird: limits.max_ird,
            max_ord: limits.max_ord,
            max_message: limits.max_message,
            max_private_data: limits.max_private_data,
            max_addresses: limits.max_addresses,
        }
    }
}

impl From<&DeviceLimits> for DeviceLimitsInfo {
    fn from(limits: &DeviceLimits) -> Self {
        Self {
            max_work_requests: limits.max_wr,
            max_sge: limits.max_sge,
            max_completions: limits.max_cqe,
            max_ird: limits.max_ird,
            max_ord: limits.max_ord,
            max_message: limits.max_message,
        }
    }
}

impl ProviderInfo {
    fn ask(engine: &Engine, name: &'static str, provider: Provider) -> Self {
        let status = engine.provider_status(provider.number());
        let limits = engine.limits(provider.number()).ok().map(LimitsInfo::from);
        let (reason, fix) = match status {
            Ok(()) => (None, None),
            Err(error) => {
                let fix = (!error.remedy.is_empty()).then(|| error.remedy.to_string());
                (Some(error.text.into_owned()), fix)
            }
        };
        Self { name, available: reason.is_none(), reason, fix, limits }
    }
}

impl AddressInfo {
    fn new(interface: &Interface, address: String) -> Self {
        let found = loopback::try_address(&address, Provider::Auto);
        let interface = interface.name.clone();
        match found {
            Ok(found) => Self {
                address,
                interface,
                provider: Some(found.way.provider),
                device: Some(found.way.device),
                stages: Some(found.stages),
                reason: None,
            },
            Err(reason) => {
                Self { address, interface, provider: None, device: None, stages: None, reason: Some(reason) }
            }
        }
    }
}

impl Info {
    fn gather() -> Result<Self, String> {
        let engine = Engine::create(EngineConfig::default()).map_err(told)?;
        let providers = vec![
            ProviderInfo::ask(&engine, "verbs", Provider::Verbs),
            ProviderInfo::ask(&engine, "iwarp", Provider::Iwarp),
        ];
        let limits = engine.device_limits().unwrap_or_default();
        let _ = engine.destroy();
        let host = Host::this();
        let with_limits = |device: Device| {
            let limits = limits.iter().find(|limits| limits.name == device.name).map(DeviceLimitsInfo::from);
            DeviceInfo { device, limits }
        };
        let interfaces = host.interfaces();
        let addresses = interfaces
            .iter()
            .filter(|interface| interface.up)
            .flat_map(|interface| interface.names().map(move |address| AddressInfo::new(interface, address)));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            providers,
            devices: host.devices().into_iter().map(with_limits).collect(),
            addresses: addresses.collect(),
        })
    }

    fn text(&self) -> String {
        let mut out = format!("rcg {}\n\nproviders\n", self.version);
        self.providers.iter().for_each(|provider| provider.write(&mut out));
        out.push_str("\nRDMA devices\n");
        if self.devices.is_empty() {
            out.push_str("  none\n");
        }
        self.devices.iter().for_each(|device| device.write(&mut out));
        out.push_str("\naddresses\n");
        for address in &self.addresses {
            let way = match (&address.provider, &address.device, &address.reason) {
                (Some(provider), Some(device), _) => format!("{provider} ({device})"),
                (_, _, reason) => format!("none: {}", reason.as_deref().unwrap_or_default()),
            };
            // Writing to a String can't fail, here and below.
            let _ = writeln!(out, "  {:<40} {:<12} {way}", address.address, address.interface);
        }
        out
    }
}

impl ProviderInfo {
    fn write(&self, out: &mut String) {
        let state = if self.available { "available" } else { "not available" };
        let _ = writeln!(out, "  {:<8} {state}", self.name);
        if let Some(reason) = &self.reason {
            let _ = writeln!(out, "           why: {reason}");
        }
        if let Some(fix) = &self.fix {
            let _ = writeln!(out, "           fix: {fix}");
        }
        if let Some(limits) = &self.limits {
            let _ = writeln!(
                out,
                "           queues {} / {}, {} elements, {} B inline, {} Reads, messages to {}, {} B private data",
                limits.max_send_depth,
                limits.max_recv_depth,
                limits.max_sge,
                limits.max_inline,
                limits.max_ord,
                octets(limits.max_message),
                limits.max_private_data
            );
        }
    }
}

impl DeviceInfo {
    fn write(&self, out: &mut String) {
        let device = &self.device;
        let _ = writeln!(
            out,
            "  {:<8} {}, {}, {}, on {}",
            device.name,
            device.kind.name(),
            device.state,
            device.rate,
            device.interface.as_deref().unwrap_or("no interface")
        );
        if let Some(limits) = &self.limits {
            let _ = writeln!(
                out,
                "           queues {}, {} elements, {} completions, {} / {} Reads, messages to {}",
                limits.max_work_requests,
                limits.max_sge,
                limits.max_completions,
                limits.max_ird,
                limits.max_ord,
                octets(limits.max_message)
            );
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    options.format.show(&Info::gather()?, Info::text)
}
