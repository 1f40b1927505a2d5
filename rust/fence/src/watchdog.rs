//! The third level: a device that resets the machine unless it is petted.
//!
//! It is petted while the permission holds or nothing of Postgres is left, so it bites when
//! what should be dead is not, and when this process itself is gone.  It is disarmed (kernel
//! documentation, "watchdog-api", magic close) only when nothing of Postgres is left.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

// linux/watchdog.h: _IOR('W', 0, struct watchdog_info of 40 bytes), _IOWR('W', 6, int)
const GET_SUPPORT: libc::c_ulong = 0x8028_5700;
const SET_TIMEOUT: libc::c_ulong = 0xc004_5706;

pub struct Watchdog {
    device: File,
    /// After how many seconds it bites; None: it is no watchdog, or would not say.
    pub timeout_s: Option<i32>,
}

impl Watchdog {
    /// Opens it, which arms it.
    pub fn open(path: &Path, timeout_s: u16) -> io::Result<Self> {
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)?;
        let timeout_s = set_timeout(&device, timeout_s);
        Ok(Self { device, timeout_s })
    }

    pub fn pet(&mut self) -> io::Result<()> {
        self.device.write_all(b"\0")
    }

    /// Disarms it.  Nothing of Postgres may be left.
    pub fn disarm(mut self) -> io::Result<()> {
        self.device.write_all(b"V")
    }
}

fn set_timeout(device: &File, timeout_s: u16) -> Option<i32> {
    let fd = device.as_raw_fd();
    let mut info = [0_u8; 40];
    let mut granted = i32::from(timeout_s);
    // SAFETY: the kernel writes at most what the request's size says into our buffers.
    unsafe {
        if libc::ioctl(fd, GET_SUPPORT, info.as_mut_ptr()) < 0 {
            return None;
        }
        if libc::ioctl(fd, SET_TIMEOUT, &mut granted) < 0 {
            return None;
        }
    }
    Some(granted)
}
