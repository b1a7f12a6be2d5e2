//! Whether this machine can do RDMA, found out without a word to anybody: librdmacm is not even asked where the kernel
//! has no device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{DeviceLimits, ForkState, sys};
use crate::error::{Error, Reason, Result};

/// Devices by name.
const DEVICES: &str = "/sys/class/infiniband";
/// For each device a file named `ibdev` that says which one it is, in a folder named as its node in `/dev/infiniband`.
const VERBS: &str = "/sys/class/infiniband_verbs";
/// Device nodes.
const NODES: &str = "/dev/infiniband";

/// Nothing if the provider can be used; otherwise why not, with the remedy. Once it could be used only the devices are
/// looked for, which come and go.
pub(crate) fn available() -> Result<()> {
    // The devices of unit tests have no files.
    if cfg!(test) {
        return prepare();
    }
    static USABLE: AtomicBool = AtomicBool::new(false);
    let device = device(Path::new(DEVICES))?;
    if !USABLE.load(Ordering::Acquire) {
        look(&device, Path::new(VERBS), Path::new(NODES))?;
        prepare()?;
        USABLE.store(true, Ordering::Release);
    }
    Ok(())
}

/// What each device can do; an error where the provider can't be used.
pub(crate) fn devices() -> Result<Vec<DeviceLimits>> {
    available().and_then(|()| sys::devices())
}

/// What becomes of registered memory when this program forks.
pub(crate) fn fork_state() -> ForkState {
    sys::fork_state()
}

/// What has to be done before the first device is opened.
fn prepare() -> Result<()> {
    // It fails where the program has registered memory by itself before: then it is for the program to have prepared.
    let _ = sys::prepare_fork();
    if sys::count_devices() == 0 {
        let text = "libibverbs has no driver for the RDMA devices of this machine";
        return Err(unavailable(libc::ENODEV, text).with_remedy("install the package ibverbs-providers"));
    }
    Ok(())
}

fn unavailable(errno: i32, text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(errno, Reason::NoProvider, text)
}

/// The device that comes first.
fn device(devices: &Path) -> Result<PathBuf> {
    first(devices).ok_or_else(|| {
        unavailable(libc::ENODEV, "this machine has no RDMA device").with_remedy(
            "load the driver of its RDMA card; without one, `rdma link add rxe0 type rxe netdev IF` makes a software \
             device, and provider iwarp needs none",
        )
    })
}

fn look(device: &Path, verbs: &Path, nodes: &Path) -> Result<()> {
    usable(&nodes.join("rdma_cm"), "the kernel's RDMA connection manager", "modprobe rdma_ucm")?;
    match first(verbs) {
        Some(node) => usable(&nodes.join(node), "the verbs of an RDMA device", "modprobe ib_uverbs"),
        None => Err(unavailable(libc::ENODEV, format!("{} offers no verbs", device.display()))
            .with_remedy("modprobe ib_uverbs")),
    }
}

/// The name that comes first in a folder; `None` where there is no folder, or nothing in it.
fn first(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.file_name()));
    let names = names.filter(|name| name != "abi_version");
    names.min().map(PathBuf::from)
}

/// Opens a device node and closes it again.
fn usable(node: &Path, what: &str, module: &'static str) -> Result<()> {
    let Err(error) = fs::OpenOptions::new().read(true).write(true).open(node) else { return Ok(()) };
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let text = format!("{what} can't be used: {}: {error}", node.display());
    let error = match error.kind() {
        io::ErrorKind::NotFound => unavailable(errno, text).with_remedy(module),
        io::ErrorKind::PermissionDenied => {
            Error::new(errno, Reason::Permission, text).with_remedy(
                "give the user access to /dev/infiniband: the group `rdma` of the distribution's udev rules; in systemd's \
                 units also DevicePolicy= and PrivateDevices=no",
            )
        }
        _ => unavailable(errno, text),
    };
    Err(error)
}

#[cfg(test)]
mod test {
    use super::*;

    struct Machine(PathBuf);

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("rcg-probe-{}-{name}", std::process::id()));
            for folder in ["devices", "verbs", "nodes"] {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            Self(root)
        }

        fn add(&self, path: &str) {
            fs::write(self.0.join(path), "").unwrap();
        }

        fn look(&self) -> Result<()> {
            let device = device(&self.0.join("devices"))?;
            look(&device, &self.0.join("verbs"), &self.0.join("nodes"))
        }
    }

    #[test]
    fn names_what_is_missing_and_the_remedy() {
        let machine = Machine::new("missing");
        let error = machine.look().unwrap_err();
        assert_eq!((error.errno, error.reason), (libc::ENODEV, Reason::NoProvider));
        assert!(error.remedy.contains("rdma link add"));
        machine.add("devices/rxe0");
        let error = machine.look().unwrap_err();
        assert_eq!((error.errno, &*error.remedy), (libc::ENOENT, "modprobe rdma_ucm"));
        assert!(error.text.contains("nodes/rdma_cm"), "{}", error.text);
        machine.add("nodes/rdma_cm");
        machine.add("verbs/abi_version");
        assert_eq!(&*machine.look().unwrap_err().remedy, "modprobe ib_uverbs");
        machine.add("verbs/uverbs0");
        assert_eq!(&*machine.look().unwrap_err().remedy, "modprobe ib_uverbs");
        machine.add("nodes/uverbs0");
        machine.look().unwrap();
    }

    #[test]
    fn a_machine_without_folders_has_no_device() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(device(nowhere).unwrap_err().errno, libc::ENODEV);
    }
}
