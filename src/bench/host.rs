//! What the figures depend on beside this program: processors, memory, congestion control, room on disk.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use rustix::fs::statvfs;
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
use serde::Serialize;

/// The machine that is measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Host {
    processors: usize,
    memory: Option<u64>,
    kernel: String,
    /// What a TCP connection gets that asks for nothing.
    congestion_control: String,
    /// What the raw streams ask for.
    raw_congestion_control: String,
    directory: PathBuf,
}

impl Host {
    pub(super) fn look(directory: &Path) -> Self {
        Self {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(),
            kernel: read("/proc/sys/kernel/osrelease"),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            raw_congestion_control: raw_congestion_control().unwrap_or_else(|_| UNKNOWN.into()),
            directory: directory.to_owned(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory.map_or_else(|| UNKNOWN.into(), |bytes| ByteSize(bytes).to_string());
        write!(
            f,
            "{} processors, {memory} of memory, kernel {}, TCP congestion control {} (raw streams: {}), files in {}",
            self.processors,
            self.kernel,
            self.congestion_control,
            self.raw_congestion_control,
            self.directory.display()
        )
    }
}

/// Asks for one that is fast over loopback, where the kernel allows it: BBR halves a stream that knows no loss.
pub(super) fn choose_congestion_control(socket: impl AsFd) {
    let fd = socket.as_fd();
    let _ = ["cubic", "reno"].iter().any(|name| set_tcp_congestion(fd, name).is_ok());
}

/// How many bytes may still be written to that folder.
pub(super) fn free_space(folder: &Path) -> io::Result<u64> {
    let file_system = statvfs(folder)?;
    Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
}

fn raw_congestion_control() -> io::Result<String> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    choose_congestion_control(&socket);
    Ok(tcp_congestion(&socket)?)
}

fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| UNKNOWN.into(), |text| text.trim().to_owned())
}

const UNKNOWN: &str = "unknown";
